// SPDX-License-Identifier: ISC
/*
 * The package: types, size, files. Requires `npm ci`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const SIZE_MAX = 5000;
const root = fileURLToPath(new URL("..", import.meta.url));
const manifest = JSON.parse(readFileSync(`${root}/package.json`));

test("tsc --strict accepts the declarations, their use and the example", async () => {
	await promisify(execFile)(process.execPath,
	    ["node_modules/typescript/bin/tsc", "--project", "testing"], { cwd: root }).catch(
	    ({ stdout, stderr }) => assert.fail(stdout + stderr));
});

test(`the module is below ${SIZE_MAX} bytes, minified and compressed`, async (t) => {
	const { outputFiles: [{ contents }] } = await build({
		entryPoints: [`${root}/tpi-stream.js`],
		bundle: true,
		format: "esm",
		minify: true,
		write: false,
	});
	const size = gzipSync(contents, { level: 9 }).length;
	t.diagnostic(`${contents.length} bytes minified, ${size} compressed`);
	assert.ok(size < SIZE_MAX, `${size} bytes`);
});

test("loading the module has no side effects: unused, nothing of it stays in a bundle", async () => {
	const { outputFiles: [{ text }] } = await build({
		stdin: { contents: 'import "tpi-stream-client";', resolveDir: root },
		bundle: true,
		format: "esm",
		minify: true,
		write: false,
		logLevel: "silent",
	});
	assert.equal(text.trim(), "");
});

test("the files in the manifest exist, and there are no dependencies", () => {
	const named = Object.values(manifest.exports).flatMap((entry) => Object.values(entry));
	for (const file of [...named, ...manifest.files])
		assert.ok(existsSync(`${root}/${file}`), file);
	assert.equal(manifest.dependencies, undefined);
});

test("the lock file names no hosts", () => {
	assert.doesNotMatch(readFileSync(`${root}/package-lock.json`, "utf8"), /"resolved"/);
});
