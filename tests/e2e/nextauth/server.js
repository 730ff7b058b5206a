"use strict";
/*
 * A real NextAuth.js (v4) under a plain HTTP server: sign-in by name and password, sessions in JSON Web
 * Tokens, user.id in the session, as TestPlanIt has it; and which projects the user of a session may
 * read. One who has a note has it in his token, which NextAuth.js then cuts into several cookies.
 *
 * In the environment: PORT, NEXTAUTH_SECRET; NEXTAUTH_URL, or AUTH_TRUST_HOST=1 (then X-Forwarded-Host and
 * -Proto say what the site is called, and whether its cookies are the secure ones).
 */
const http = require("node:http");
const { randomBytes } = require("node:crypto");
const cookie = require("cookie");
const { default: NextAuth, getServerSession } = require("next-auth");
const { default: Credentials } = require("next-auth/providers/credentials");

const users = {
	ann: { projects: [7, 8], note: 0 },
	ben: { projects: [8], note: 0 },
	kim: { projects: [7], note: 3000 },
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
			if (user)
				token.note = randomBytes(users[user.id].note).toString("base64url");
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

async function projects(req, res) {
	const session = await getServerSession(req, res, options);
	if (!session?.user?.id)
		return res.status(401).json({ error: "not signed in" });
	const { where } = JSON.parse(req.query.q);
	const readable = where.id.in.filter((id) => users[session.user.id].projects.includes(id));
	return res.json({ data: readable.map((id) => ({ id })) });
}

async function answer(req, res) {
	const url = new URL(req.url, "http://localhost");
	await adapt(req, res, url);
	if (url.pathname === "/api/model/projects/findMany")
		return projects(req, res);
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
