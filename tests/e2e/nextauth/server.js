// SPDX-License-Identifier: ISC
"use strict";
/*
 * A real NextAuth.js (v4) under a plain HTTP server: sign-in by name and password, sessions in JSON Web
 * Tokens, user.id in the session, as TestPlanIt has it; and which projects the user of a session may
 * read, behind a front door like TestPlanIt's, which lets in scripts only for users with API access.
 * A user's note goes into the token, which NextAuth.js then cuts into several cookies.
 *
 * In the environment: PORT, NEXTAUTH_SECRET; NEXTAUTH_URL, or AUTH_TRUST_HOST=1 (then X-Forwarded-Host and
 * -Proto say what the site is called, and whether its cookies are the secure ones).
 */
const http = require("node:http");
const { randomBytes } = require("node:crypto");
const cookie = require("cookie");
const { default: NextAuth, getServerSession } = require("next-auth");
const { getToken } = require("next-auth/jwt");
const { default: Credentials } = require("next-auth/providers/credentials");

const users = {
	ann: { projects: [7, 8], note: 0 },
	ben: { projects: [8], note: 0 },
	kim: { projects: [7], note: 3000 },
	ada: { projects: [7], note: 0, access: "ADMIN" },
	sam: { projects: [7], note: 0, isApi: true },
};

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

async function projects(req, res) {
	const session = await getServerSession(req, res, options);
	const mine = session?.user?.id ? users[session.user.id].projects : [];
	const { where } = JSON.parse(req.query.q);
	const readable = where.id.in.filter((id) => mine.includes(id));
	return res.json({ data: readable.map((id) => ({ id })) });
}

async function answer(req, res) {
	const url = new URL(req.url, "http://localhost");
	await adapt(req, res, url);
	if (url.pathname === "/api/model/projects/findMany") {
		if (await isRefused(req))
			return res.status(403).json({ error: "External API access not enabled for this account" });
		return projects(req, res);
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
