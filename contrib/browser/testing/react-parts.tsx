// SPDX-License-Identifier: ISC
/* What test/react.test.js needs of one version of React, as one bundle. */
export { QueryClient, QueryClientProvider } from "@tanstack/react-query";
export { StrictMode, act, createElement, version } from "react";
export { createRoot } from "react-dom/client";
export { renderToString } from "react-dom/server";
export * from "tpi-stream-client/react";
export * from "../examples/tanstack-query.js";
export * from "../examples/testplanit-hooks.js";
