/* What the tests of the pages stand on: a bond in the laboratory, the stand-in of LuCI in front of it, and a browser. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

import { chromium } from 'playwright-core';

import { HERE, PICTURES, PROGRAM, RESOURCES, ROOT } from './paths.js';
import { parseUci, printUci } from './uci.js';

const STAGE = process.env.STAGE || path.join(ROOT, 'target/simulation/stage');
const CHROMIUM = process.env.CHROMIUM || [ '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome' ]
	.find(fs.existsSync);

fs.mkdirSync(PICTURES, { recursive: true });

/* Calls `look` until it gives something true; `seen` says in the end what was there instead. */
export async function until(what, look, seconds = 60, seen = null) {
	const end = Date.now() + seconds * 1000;

	for (;;) {
		const found = await look();

		if (found)
			return found;

		if (Date.now() > end)
			throw new Error(`not within ${seconds} s: ${what}${seen ? `; the page says: ${await seen()}` : ''}`);

		await new Promise(resolve => setTimeout(resolve, 50));
	}
}

/* Runs a method of the ubus object as rpcd does. */
export function ubus(config, state, method, params = {}) {
	return new Promise((resolve, reject) => {
		const child = execFile(PROGRAM, [ 'rpcd', '--config', config, '--state', state, 'call', method ],
			{ timeout: 60000, maxBuffer: 8 << 20 },
			(error, stdout, stderr) => error ? reject(new Error(stderr || error.message)) : resolve(JSON.parse(stdout)));

		child.stdin.on('error', () => {});
		child.stdin.end(JSON.stringify(params));
	});
}

/* Two daemons over emulated lines, until `close`. */
export class Stage {
	static async open() {
		const stage = new Stage();

		stage.child = spawn(STAGE, [ PROGRAM ], { stdio: [ 'pipe', 'pipe', 'inherit' ] });
		stage.lines = readline.createInterface({ input: stage.child.stdout })[Symbol.asyncIterator]();
		stage.ended = once(stage.child, 'exit');

		const first = await stage.lines.next();

		if (first.done)
			throw new Error('the laboratory did not start');

		Object.assign(stage, JSON.parse(first.value));

		return stage;
	}

	async order(text) {
		this.child.stdin.write(text + '\n');

		const { value } = await this.lines.next();

		if (value !== 'ok')
			throw new Error(`${text}: ${value}`);
	}

	async close() {
		this.child.stdin.end();
		await this.ended;
	}
}

const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.html': 'text/html' };

/* Serves the pages and answers their calls. `answers` replaces methods, `allowed` says which an account may call. */
export class Server {
	constructor(config) {
		this.config = config;
		this.state = fs.mkdtempSync(path.join(os.tmpdir(), 'bonding-luci-'));
		this.answers = {};
		this.allowed = null;
		this.networks = [];
		this.calls = [];
		this.applies = [];
		this.listener = http.createServer((request, reply) => this.serve(request, reply).catch(error => {
			/* As LuCI's: an error is an answer, and no failure of HTTP. */
			reply.writeHead(200, { 'content-type': 'application/json' });
			reply.end(JSON.stringify({ failure: error.message }));
		}));
	}

	async open() {
		this.listener.listen(0, '127.0.0.1');
		await once(this.listener, 'listening');
		this.address = `http://127.0.0.1:${this.listener.address().port}`;

		return this;
	}

	close() {
		this.listener.closeAllConnections();
		this.listener.close();
		fs.rmSync(this.state, { recursive: true });
	}

	async serve(request, reply) {
		const { pathname } = new URL(request.url, this.address);

		if (request.method === 'POST') {
			let body = '';

			for await (const chunk of request)
				body += chunk;

			const answer = await this.answer(pathname, JSON.parse(body));

			reply.writeHead(200, { 'content-type': 'application/json' });
			reply.end(JSON.stringify(answer));

			return;
		}

		if (pathname === '/favicon.ico') {
			reply.writeHead(204);
			reply.end();

			return;
		}

		const file = pathname === '/' ? path.join(HERE, 'standin/page.html')
			: pathname.startsWith('/standin/') ? path.join(HERE, path.normalize(pathname))
				: pathname.startsWith('/luci-static/resources/')
					? path.join(RESOURCES, path.normalize(pathname.slice('/luci-static/resources'.length))) : null;

		if (!file || !fs.existsSync(file)) {
			reply.writeHead(404);
			reply.end();

			return;
		}

		reply.writeHead(200, { 'content-type': TYPES[path.extname(file)] || 'text/plain' });
		reply.end(fs.readFileSync(file));
	}

	async answer(where, body) {
		switch (where) {
		case '/ubus': {
			this.calls.push(body);

			if (body.object !== 'bonding' || (this.allowed && !this.allowed.includes(body.method)))
				throw new Error('Access denied');

			const known = this.answers[body.method];

			return typeof known === 'function' ? known(body.params)
				: known ?? ubus(this.config, this.state, body.method, body.params);
		}
		case '/uci':
			return { sections: parseUci(fs.readFileSync(this.config, 'utf8')) };
		case '/save':
			this.pending = printUci(body.sections);

			return {};
		case '/apply':
			if (this.pending)
				fs.writeFileSync(this.config, this.pending);

			this.pending = null;
			this.applies.push(await ubus(this.config, this.state, 'reload'));

			return {};
		case '/networks':
			return { networks: this.networks };
		default:
			throw new Error(`no such thing: ${where}`);
		}
	}
}

/* A browser whose pages collect what they say on the console. */
export class Browser {
	/* `wrap` may give another program that runs the browser. */
	static async open(wrap = program => program) {
		if (!CHROMIUM)
			throw new Error('no Chromium: install chromium, or set CHROMIUM to its path');

		const browser = new Browser();

		browser.chromium = await chromium.launch({
			executablePath: wrap(CHROMIUM),
			args: [ '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run' ]
		});

		return browser;
	}

	/* A page of its own session; `complaints` gathers errors and warnings of its console. */
	async page({ width = 1280, height = 900, dark = false, locale = 'en-GB' } = {}) {
		const context = await this.chromium.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', locale });
		const page = await context.newPage();

		page.complaints = [];
		page.setDefaultTimeout(20000);
		page.on('console', message => {
			if ([ 'error', 'warning' ].includes(message.type()))
				page.complaints.push(`${message.text()} ${message.location().url}`);
		});
		page.on('pageerror', error => page.complaints.push(error.stack));

		return page;
	}

	close() {
		return this.chromium.close();
	}
}

/* Opens a view of the stand-in. `haste` shortens the time between two looks. */
export async function show(page, server, view, { readonly = false, haste = 4, translations = null } = {}) {
	await page.addInitScript(settings => {
		window.standin = settings;
	}, { view, readonly, haste, translations });
	await page.goto(server.address);
	await page.waitForSelector('#maincontent > *');
}

/* A screenshot at each of the widths and schemes; a page may not be wider than the screen. */
export async function picture(page, name, looks = [ [ 1280, false ], [ 360, true ] ]) {
	for (const [ width, dark ] of looks) {
		await page.setViewportSize({ width, height: width > 600 ? 900 : 740 });
		await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
		await page.waitForTimeout(100);

		const wide = await page.evaluate(() => document.documentElement.scrollWidth);

		await page.screenshot({ path: path.join(PICTURES, `${name}-${width}-${dark ? 'dark' : 'light'}.png`), fullPage: true });

		if (wide > width)
			throw new Error(`${name}: ${wide} pixels wide on a screen of ${width}`);
	}
}
