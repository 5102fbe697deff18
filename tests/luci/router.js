/* OpenWrt with this program and its pages installed, and a server at its provider. */

import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

import { until } from './bench.js';
import { LANGUAGES } from './catalog.js';
import { APP, HERE, ROOT } from './paths.js';

/* A program that needs nothing of the system that it runs on. */
const STATIC = process.env.BONDING_STATIC || path.join(ROOT, `target/${os.arch() === 'arm64' ? 'aarch64' : 'x86_64'}-unknown-linux-musl/simulation/bonding`);

/* Why no router can be had here; nothing if one can. */
export function missing() {
	if (!process.env.ROOTFS)
		return 'no ROOTFS=FOLDER: give the root file system of an OpenWrt for this processor, with LuCI';

	if (process.getuid() !== 0)
		return 'it takes root to boot a router';

	if (!fs.existsSync(path.join(ROOT, 'files/etc/init.d/bonding')))
		return 'this tree has no service script for OpenWrt';

	return fs.existsSync(STATIC) ? null : `no program for OpenWrt: ${STATIC}`;
}

export class Router {
	static async boot() {
		const router = new Router();

		router.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bonding-router-'));
		fs.chmodSync(router.folder, 0o755);
		router.boot = spawn(path.join(HERE, 'boot.sh'), [ process.env.ROOTFS, router.folder ], { stdio: [ 'pipe', 'pipe', 'inherit' ] });
		router.ended = once(router.boot, 'exit');
		router.pids = {};

		for await (const line of readline.createInterface({ input: router.boot.stdout })) {
			const [ name, pid ] = line.split(' ');

			router.pids[name] = pid;

			if (name === 'inet')
				break;
		}

		await until('the router has booted', async () => {
			const up = await router.run('ubus call network.interface.wan1 status && ubus list luci').catch(() => '');

			return /"up": true/.test(up) && /^luci$/m.test(up);
		}, 90);

		return router;
	}

	/* A shell's command on the router; gives what it prints. */
	run(command, input = null, seconds = 30) {
		return this.program([ 'nsenter', '-t', this.pids.router, '-U', '-m', '-p', '-n', '-u', '-i', '-r', '-w', '--',
			'/usr/bin/env', '-i', 'HOME=/root', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', '/bin/sh', '-c', command ], input, seconds);
	}

	/* A program of this machine in the network of the provider. */
	inet(...words) {
		return this.program([ 'nsenter', '-t', this.pids.inet, '-n', '--', ...words ]);
	}

	/* The same in that of the LAN. */
	lan(...words) {
		return this.program([ 'nsenter', '-t', this.pids.lan, '-n', '--', ...words ]);
	}

	program([ program, ...words ], input = null, seconds = 30) {
		return new Promise((resolve, reject) => {
			const child = execFile(program, words, { timeout: seconds * 1000, maxBuffer: 8 << 20, encoding: 'utf8' },
				(error, stdout, stderr) => error ? reject(new Error(`${words.join(' ')}: ${error.message}\n${stderr}`)) : resolve(stdout));

			child.stdin.on('error', () => {});
			child.stdin.end(input);
		});
	}

	/* What the packages install. */
	async install() {
		const put = async (folder, names, where) => this.run(`mkdir -p ${where} && tar -xf - -C ${where}`,
			execFileSync('tar', [ '-C', folder, '--owner=0', '--group=0', '-cf', '-', ...names ], { maxBuffer: 64 << 20 }));

		await put(path.join(ROOT, 'files'), [ '.' ], '/');
		await put(path.dirname(STATIC), [ path.basename(STATIC) ], '/usr/sbin');
		await put(path.join(APP, 'htdocs'), [ '.' ], '/www');
		await put(path.join(APP, 'root'), [ '.' ], '/');

		const i18n = '/usr/lib/lua/luci/i18n';

		for (const language of LANGUAGES) {
			execFileSync(path.join(ROOT, 'scripts/po2lmo'), [ path.join(APP, 'po', language, 'bonding.po'), path.join(this.folder, `bonding.${language}.lmo`) ]);
			await put(this.folder, [ `bonding.${language}.lmo` ], i18n);
			await this.run(`uci set luci.languages.${language}=${language}; uci commit luci`);
		}

		await this.run('chmod 755 /usr/sbin/bonding /usr/libexec/rpcd/bonding /etc/init.d/bonding; chmod 600 /etc/config/bonding; rm -rf /tmp/luci-*; '
			+ '/etc/init.d/bonding enable; /etc/init.d/rpcd restart');
		await until('rpcd knows the object', () => this.run('ubus list bonding').catch(() => ''));
	}

	/* Starts a server at the provider, and gives the line that lets a router in. */
	async serve() {
		/* A folder of its own: the daemon gives up the rights by which root writes into others' folders. */
		this.served = fs.mkdtempSync(path.join(os.tmpdir(), 'bonding-server-'));

		const config = path.join(this.served, 'server.conf');
		const bonding = (...words) => execFileSync(STATIC, words, { encoding: 'utf8' });

		bonding('server', 'init', '--no-start', '--address', '203.0.113.1', '--config', config);
		fs.writeFileSync(config, fs.readFileSync(config, 'utf8')
			.replace("config globals 'globals'", `config globals 'globals'\n\toption control_socket '${this.served}/server.sock'`));

		const line = bonding('server', 'add-peer', 'home', '--line', '--config', config).trim();

		this.server = spawn('nsenter', [ '-t', this.pids.inet, '-n', '--', STATIC, 'run', '--config', config ], { stdio: [ 'ignore', 'ignore', fs.openSync(path.join(this.served, 'server.log'), 'w') ] });

		return line;
	}

	/* What the daemon on the router says. */
	async status() {
		return JSON.parse(await this.run('ubus call bonding status'));
	}

	/* A browser in the network of the router's LAN. */
	browser(program) {
		const script = path.join(this.folder, 'browser');

		fs.writeFileSync(script, `#!/bin/sh\nexec nsenter -t ${this.pids.lan} -n -- '${program}' "$@"\n`, { mode: 0o755 });

		return script;
	}

	async close() {
		if (this.server) {
			this.server.kill();
			await once(this.server, 'exit');
			fs.rmSync(this.served, { recursive: true });
		}

		this.boot.stdin.end();
		await this.ended;
		this.boot.stdout.destroy();
		fs.rmSync(this.folder, { recursive: true, force: true });
	}
}
