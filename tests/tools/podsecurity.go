// SPDX-License-Identifier: ISC

// podsecurity: checks the pods in manifests against the restricted Pod Security standard, with the code of
// Kubernetes. Arguments: files of YAML documents. Prints the number of pods, and names what is not allowed.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// template returns the pod in a document of a kind that has one, or nil.
func template(document []byte) (*metav1.ObjectMeta, *corev1.PodSpec, error) {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(document, &head); err != nil {
		return nil, nil, err
	}
	switch head.Kind {
	case "Deployment":
		var deployment appsv1.Deployment
		err := yaml.UnmarshalStrict(document, &deployment)
		return &deployment.Spec.Template.ObjectMeta, &deployment.Spec.Template.Spec, err
	case "Pod":
		var pod corev1.Pod
		err := yaml.UnmarshalStrict(document, &pod)
		return &pod.ObjectMeta, &pod.Spec, err
	}
	return nil, nil, nil
}

func check(evaluator policy.Evaluator, path string) (pods int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	reader := yamlutil.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return pods, nil
		}
		if err != nil {
			return 0, err
		}
		meta, spec, err := template(document)
		if err != nil {
			return 0, err
		}
		if spec == nil {
			continue
		}
		pods++
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, meta, spec))
		if !result.Allowed {
			return 0, errors.New(result.ForbiddenDetail())
		}
	}
}

func main() {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	total, failed := 0, false
	for _, path := range os.Args[1:] {
		pods, err := check(evaluator, path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
		total += pods
	}
	fmt.Println(total)
	if failed {
		os.Exit(1)
	}
}
