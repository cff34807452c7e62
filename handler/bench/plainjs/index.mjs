// The subject of a benchmark and no advice: the polling function that published articles have people write for new users of a
// tenant, in JavaScript, with @microsoft/microsoft-graph-client and fetch. It does exactly what handler/bench/plain does in
// Go, whose header says what that is, what it leaves out and what it does better than what is published. It is a custom
// handler, so that the same host starts, calls and kills it as the program that it is compared with.
import http from "node:http";
import graph from "@microsoft/microsoft-graph-client";

const env = process.env;
const lookBack = 10 * 60 * 1000; // how far a run looks back, in ms; it comes every five minutes
const attributes = ["stripeCustomerId", "mailchimpId", "salesforceId"]; // custom attributes for the accounts' ids

// now is the time of a clock that runs faster, if there is one.
function now() {
	const [start, rate] = (env.SIGNUP_SYNC_CLOCK ?? "").split(",");
	return rate ? Date.parse(start) + (Date.now() - Date.parse(start)) * Number(rate) : Date.now();
}

// token is for Graph; it is kept until shortly before its end.
let kept = { value: "", until: 0 };
async function token() {
	if (Date.now() > kept.until) {
		const form = { grant_type: "client_credentials", client_id: env.ENTRA_CLIENT_ID, client_secret: env.ENTRA_CLIENT_SECRET, scope: "https://graph.microsoft.com/.default" };
		const granted = await post(`${env.ENTRA_AUTHORITY}/${env.ENTRA_TENANT_ID}/oauth2/v2.0/token`, "", new URLSearchParams(form));
		kept = { value: granted.access_token, until: Date.now() + (granted.expires_in - 300) * 1000 };
	}
	return kept.value;
}

const client = graph.Client.initWithMiddleware({
	authProvider: { getAccessToken: token },
	baseUrl: `${env.GRAPH_URL}/`,
	customHosts: new Set([new URL(env.GRAPH_URL).hostname]),
});

// added are the users of whom the audit log says that they were added since, in its order, each once.
async function added(since) {
	const ids = new Set();
	const filter = `category eq 'UserManagement' and activityDisplayName eq 'Add user' and activityDateTime ge ${since.toISOString()}`;
	let page = await client.api("/auditLogs/directoryAudits").filter(filter).get();
	for (;;) {
		for (const record of page.value) {
			if (record.result === "success") record.targetResources.forEach((target) => ids.add(target.id));
		}
		if (!page["@odata.nextLink"]) return ids;
		page = await client.api(page["@odata.nextLink"]).get();
	}
}

// post sends a form or JSON and reads the answer.
async function post(address, key, body) {
	const form = body instanceof URLSearchParams;
	const headers = key ? { Authorization: `Bearer ${key}` } : {};
	if (!form) headers["Content-Type"] = "application/json";
	const answer = await fetch(address, { method: "POST", headers, body: form ? body : JSON.stringify(body) });
	const text = await answer.text();
	if (!answer.ok) throw new Error(`${new URL(address).pathname} answered ${answer.status}: ${text}`);
	return JSON.parse(text);
}

let session = ""; // at Salesforce, for a run

const create = {
	async stripeCustomerId(u) {
		const form = { email: u.email, name: `${u.givenName} ${u.surname}`, "metadata[entra_object_id]": u.id };
		return (await post(`${env.STRIPE_URL}/v1/customers`, env.STRIPE_API_KEY, new URLSearchParams(form))).id;
	},
	async mailchimpId(u) {
		const body = { email_address: u.email, status: "subscribed", merge_fields: { FNAME: u.givenName, LNAME: u.surname } };
		return (await post(`${env.SIMULATED_URL}/3.0/lists/${env.MAILCHIMP_AUDIENCE}/members`, env.MAILCHIMP_API_KEY, body)).contact_id;
	},
	async salesforceId(u) {
		if (!session) {
			const form = { grant_type: "client_credentials", client_id: env.SALESFORCE_ID, client_secret: env.SALESFORCE_SECRET };
			session = (await post(`${env.SIMULATED_URL}/services/oauth2/token`, "", new URLSearchParams(form))).access_token;
		}
		const body = { FirstName: u.givenName, LastName: u.surname, Email: u.email, Entra_Object_Id__c: u.id };
		return (await post(`${env.SIMULATED_URL}/services/data/v62.0/sobjects/Contact`, session, body)).id;
	},
};

// associate brings one user everywhere. A destination that fails is logged, and the next one comes.
async function associate(id) {
	const names = attributes.map((name) => env.EXTENSION_PREFIX + name);
	const u = await client.api(`/users/${id}`).select(["id", "givenName", "surname", "mail", "identities", ...names]).get();
	u.email = u.identities?.find((i) => i.signInType === "emailAddress")?.issuerAssignedId ?? u.mail;
	const made = {};
	for (const name of attributes) {
		if ((env.MARKS && u[env.EXTENSION_PREFIX + name]) || (env.LIFTED && name === "mailchimpId")) continue;
		try {
			made[env.EXTENSION_PREFIX + name] = await create[name](u);
		} catch (err) {
			console.error(`${id}: ${name}: ${err.message}`);
		}
	}
	if (Object.keys(made).length > 0 && !env.LIFTED) {
		await client.api(`/users/${id}`).patch({ displayName: `${u.givenName} ${u.surname}`, ...made });
	}
}

// run is one call by the timer. An error of a user is logged, and the next one comes.
async function run() {
	session = "";
	for (const id of await added(new Date(now() - lookBack))) {
		try {
			await associate(id);
		} catch (err) {
			console.error(`${id}: ${err.message}`);
		}
	}
}

http.createServer(async (request, response) => {
	if (request.method !== "POST") return response.end();
	try {
		await run();
		response.setHeader("Content-Type", "application/json");
		response.end(`{"Outputs":{},"Logs":[],"ReturnValue":null}`);
	} catch (err) {
		console.error(err.message);
		response.statusCode = 500;
		response.end(err.message);
	}
}).listen(Number(env.FUNCTIONS_CUSTOMHANDLER_PORT), "127.0.0.1");
