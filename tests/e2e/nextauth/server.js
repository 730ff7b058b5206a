// SPDX-License-Identifier: ISC
"use strict";
/*
 * The real NextAuth.js (v4) on a plain HTTP server: sign-in with name and password, sessions in JSON Web
 * Tokens, and user.id in the session, as in TestPlanIt. It also answers which projects, test runs and
 * milestones a user may read, with TestPlanIt's check in front, which lets scripts in only for users with API
 * access. A user's note goes into the token; a long one makes NextAuth.js split the cookie.
 *
 * In the environment: PORT, NEXTAUTH_SECRET; NEXTAUTH_URL, or AUTH_TRUST_HOST=1 (X-Forwarded-Host and
 * X-Forwarded-Proto then determine the site's name and whether its cookies are the secure ones).
 */
const http = require("node:http");
const { randomBytes } = require("node:crypto");
const cookie = require("cookie");
const { default: NextAuth, getServerSession } = require("next-auth");
const { getToken } = require("next-auth/jwt");
const { default: Credentials } = require("next-auth/providers/credentials");

const users = {
	ann: { projects: [7, 8], testRuns: [7, 9], milestones: [7, 9], note: 0 },
	ben: { projects: [8], note: 0 },
	kim: { projects: [7], note: 3000 },
	ada: { projects: [7], note: 0, access: "ADMIN" },
	sam: { projects: [7], note: 0, isApi: true },
};

/* What is marked as deleted, by model; a model that is not here does not exist. */
const deleted = { projects: [8], testRuns: [9], milestones: [9] };

const options = {
	session: { strategy: "jwt" },
	providers: [Credentials({
		credentials: { username: {}, password: {} },
		authorize: ({ username, password }) =>
		    Object.hasOwn(users, username) && password === username ? { id: username } : null,
	})],
	callbacks: {
		jwt({ token, user }) {
			if (user) {
				const { access = "USER", isApi = false, note } = users[user.id];
				Object.assign(token, { access, isApi, note: randomBytes(note).toString("base64url") });
			}
			return token;
		},
		session({ session, token }) {
			session.user.id = token.sub;
			return session;
		},
	},
};

/* What NextAuth.js expects of a request and an answer of Next.js. */
async function adapt(req, res, url) {
	let body = "";
	for await (const piece of req)
		body += piece;
	req.body = Object.fromEntries(new URLSearchParams(body));
	req.cookies = cookie.parse(req.headers.cookie || "");
	req.query = Object.fromEntries(url.searchParams);
	res.status = (code) => {
		res.statusCode = code;
		return res;
	};
	res.json = (content) => {
		res.setHeader("Content-Type", "application/json");
		res.end(JSON.stringify(content));
	};
	res.send = (content) => typeof content === "object" ? res.json(content) : res.end(content);
}

/* Whether a header holds a URL of the request's own host. */
function isOfHost(text, host) {
	return URL.canParse(text) && new URL(text).host === host;
}

/* TestPlanIt's rule for every path but /api/auth/: without a session the policies decide. */
async function isRefused(req) {
	const { host, origin, referer } = req.headers;
	const token = await getToken({ req, secret: process.env.NEXTAUTH_SECRET,
		secureCookie: req.headers["x-forwarded-proto"] === "https" });

	return token && token.access !== "ADMIN" && !token.isApi &&
	    !["same-origin", "same-site"].includes(req.headers["sec-fetch-site"]) &&
	    !isOfHost(origin, host) && !isOfHost(referer, host);
}

/* findMany as ZenStack answers it; fields that the model does not have are an error. */
async function findMany(req, res, model) {
	if (!Object.hasOwn(deleted, model))
		return res.status(400).json({ error: { message: `unknown model name: ${model}` } });
	const session = await getServerSession(req, res, options);
	const mine = session?.user?.id ? users[session.user.id][model] || [] : [];
	const { where: { id: { in: asked }, isDeleted, ...others } } = JSON.parse(req.query.q);
	if (Object.keys(others).length > 0 || ![undefined, false, true].includes(isDeleted))
		return res.status(400).json({ error: { message: "invalid query args" } });
	const readable = asked.filter((id) => mine.includes(id) &&
	    (isDeleted === undefined || deleted[model].includes(id) === isDeleted));
	return res.json({ data: readable.map((id) => ({ id })) });
}

async function answer(req, res) {
	const url = new URL(req.url, "http://localhost");
	await adapt(req, res, url);
	const [, model] = /^\/api\/model\/([^/]+)\/findMany$/.exec(url.pathname) || [];
	if (model) {
		if (await isRefused(req))
			return res.status(403).json({ error: "External API access not enabled for this account" });
		return findMany(req, res, model);
	}
	if (url.pathname.startsWith("/api/auth/")) {
		req.query.nextauth = url.pathname.split("/").slice(3);
		return NextAuth(req, res, options);
	}
	return res.status(404).json({ error: "no such page" });
}

const server = http.createServer((req, res) => answer(req, res).catch((error) => {
	console.error(error);
	res.statusCode = 500;
	res.end();
}));
server.listen(Number(process.env.PORT), "127.0.0.1", () => console.log("ready"));
