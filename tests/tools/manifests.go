// SPDX-License-Identifier: ISC

// manifests: checks Kubernetes objects with the code of Kubernetes: that no field is unknown or there twice, and that
// each pod meets the restricted Pod Security standard. Arguments: files of YAML documents. Prints how many objects and
// how many pods there are, and names what is wrong.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

type checker struct {
	decoder       runtime.Decoder
	evaluator     policy.Evaluator
	objects, pods int
}

// pod returns the pod of an object that has one, or nil.
func pod(object runtime.Object) (*metav1.ObjectMeta, *corev1.PodSpec) {
	switch object := object.(type) {
	case *appsv1.Deployment:
		return &object.Spec.Template.ObjectMeta, &object.Spec.Template.Spec
	case *corev1.Pod:
		return &object.ObjectMeta, &object.Spec
	}
	return nil, nil
}

func (c *checker) document(text []byte) error {
	object, _, err := c.decoder.Decode(text, nil, nil)
	if err != nil {
		return err
	}
	c.objects++
	meta, spec := pod(object)
	if spec == nil {
		return nil
	}
	c.pods++
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(c.evaluator.EvaluatePod(restricted, meta, spec))
	if !result.Allowed {
		return errors.New(result.ForbiddenDetail())
	}
	return nil
}

func (c *checker) file(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := yamlutil.NewYAMLReader(bufio.NewReader(file))
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// A file begins with its license, which is a document of its own if "---" follows.
		if !bytes.Contains(text, []byte("\nkind: ")) {
			continue
		}
		if err := c.document(text); err != nil {
			return err
		}
	}
}

func main() {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	c := checker{evaluator: evaluator, decoder: json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme,
		scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})}
	failed := false
	for _, path := range os.Args[1:] {
		if err := c.file(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	fmt.Println(c.objects, c.pods)
	if failed {
		os.Exit(1)
	}
}
