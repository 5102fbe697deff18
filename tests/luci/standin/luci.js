/*
 * A small stand-in of LuCI's client API: as much of it as the pages of luci-app-bonding use, with the same contracts
 * (a bare string as a child is HTML, an array's strings are text; forms parse, validate and write as LuCI's do). It asks
 * the test's server, which answers with the real daemon's JSON.
 */
(() => {
'use strict';

const env = window.standin;

/* printf as LuCI's String.prototype.format, for %s, %d, %f and %%. */
String.prototype.format = function(...args) {
	let next = 0;

	return this.replace(/%(?:\.(\d+))?([sdf%])/g, (_all, digits, kind) => {
		if (kind === '%')
			return '%';

		const value = args[next++];

		switch (kind) {
		case 'd': return String(Math.trunc(Number(value)) || 0);
		case 'f': return Number(value).toFixed(digits ?? 6);
		default: return String(value);
		}
	});
};

window._ = text => env.translations?.[text] ?? text;

const dom = {
	elem: value => value instanceof Node,
	append(node, children) {
		if (Array.isArray(children)) {
			for (const child of children) {
				if (child instanceof Node)
					node.appendChild(child);
				else if (child !== null && child !== undefined)
					node.appendChild(document.createTextNode(String(child)));
			}
		}
		else if (children instanceof Node) {
			node.appendChild(children);
		}
		else if (children !== null && children !== undefined) {
			node.innerHTML = String(children);
		}

		return node.lastChild;
	},
	content(node, children) {
		node.replaceChildren();

		return this.append(node, children);
	},
	create(tag, attributes, children) {
		if (Array.isArray(tag)) {
			const fragment = document.createDocumentFragment();

			this.append(fragment, tag);

			return fragment;
		}

		if (children === undefined && (Array.isArray(attributes) || attributes instanceof Node || typeof attributes === 'string')) {
			children = attributes;
			attributes = null;
		}

		const node = document.createElement(tag);

		for (const [ name, value ] of Object.entries(attributes || {})) {
			if (typeof value === 'function')
				node.addEventListener(name, value);
			else if (value !== null && value !== undefined)
				node.setAttribute(name, value);
		}

		this.append(node, children);

		return node;
	}
};

window.E = (...args) => dom.create(...args);

/* Classes: `extend` gives a class whose prototype has the given properties. */
class Base {
	static extend(properties) {
		const derived = class extends this {};

		Object.assign(derived.prototype, properties);

		return derived;
	}
}

const poll = {
	entries: [],
	add(fn, interval) {
		const entry = { fn, timer: setInterval(() => this.run(entry), (interval || 5) * 1000 / env.haste), busy: false };

		this.entries.push(entry);

		return true;
	},
	async run(entry) {
		if (entry.busy)
			return;

		entry.busy = true;

		try {
			await entry.fn();
		}
		finally {
			entry.busy = false;
		}
	}
};

async function ask(path, body) {
	const reply = await fetch(path, { method: 'POST', body: JSON.stringify(body) });
	const answer = await reply.json();

	if (answer.failure)
		throw new Error(answer.failure);

	return answer;
}

const rpc = {
	declare({ object, method, params, expect }) {
		return async (...args) => {
			const named = Object.fromEntries((params || []).map((name, index) => [ name, args[index] ])
				.filter(([ , value ]) => value !== undefined && value !== null));

			env.calls[method] = (env.calls[method] || 0) + 1;

			const answer = await ask('/ubus', { object, method, params: named });
			const key = expect && Object.keys(expect)[0];

			return key ? answer[key] ?? expect[key] : answer;
		};
	}
};

const ui = {
	createHandlerFn(self, handler, ...bound) {
		const act = typeof handler === 'string' ? self[handler] : handler;

		return event => {
			const target = event.currentTarget;

			target.classList.add('spinning');
			target.disabled = true;

			/* A form has told of its error by then. */
			return Promise.resolve(act.call(self, ...bound, event)).catch(() => {}).finally(() => {
				target.classList.remove('spinning');
				target.disabled = false;
			});
		};
	},
	addNotification(title, children, ...classes) {
		const node = E('div', { 'class': [ 'alert-message', ...classes ].join(' '), 'role': 'alert' }, [
			title ? E('h4', [ title ]) : null, ...[ children ].flat()
		]);

		document.querySelector('#maincontent').prepend(node);

		return node;
	},
	showModal(title, children) {
		this.hideModal();
		document.body.appendChild(E('div', { 'id': 'modal_overlay' }, [
			E('div', { 'class': 'modal', 'role': 'dialog' }, [ E('h4', [ title ]), ...[ children ].flat() ])
		]));
	},
	hideModal() {
		document.querySelector('#modal_overlay')?.remove();
	},
	changes: {
		/* What LuCI does: commit, reload the services, and ask whether the router can still be reached. */
		apply: async () => {
			await ask('/apply', {});
			env.applied++;
		}
	}
};

/* The configuration, as the server parses it; changes are kept until they are saved. */
const uci = {
	sectionsOf: {},
	fresh: 0,
	async load(config) {
		this.sectionsOf[config] ||= (await ask('/uci', { config })).sections;
	},
	unload(config) {
		delete this.sectionsOf[config];
	},
	sections(config, type, each) {
		const found = (this.sectionsOf[config] || []).filter(section => !type || section['.type'] === type);

		found.forEach(section => each?.(section, section['.name']));

		return found;
	},
	section(config, name) {
		return (this.sectionsOf[config] || []).find(section => section['.name'] === name);
	},
	get(config, name, option) {
		const section = this.section(config, name);

		return option ? section?.[option] ?? null : section ?? null;
	},
	set(config, name, option, value) {
		const section = this.section(config, name);

		if (!section)
			return;

		if (value === null || value === undefined || value === '')
			delete section[option];
		else
			section[option] = value;
	},
	unset(config, name, option) {
		delete this.section(config, name)?.[option];
	},
	add(config, type, name) {
		const sid = name || 'new%d'.format(++this.fresh);

		this.sectionsOf[config].push({ '.type': type, '.name': sid, '.anonymous': !name });

		return sid;
	},
	remove(config, name) {
		this.sectionsOf[config] = this.sectionsOf[config].filter(section => section['.name'] !== name);
	},
	async save() {
		for (const config in this.sectionsOf)
			await ask('/save', { config, sections: this.sectionsOf[config] });
	}
};

const view = class extends Base {
	constructor() {
		super();
		this.start();
	}

	async start() {
		const loaded = await this.load?.();
		const node = await this.render(loaded);
		const main = document.querySelector('#maincontent');

		dom.content(main, node);

		const footer = [
			[ 'handleSaveApply', 'Save & Apply' ], [ 'handleSave', 'Save' ], [ 'handleReset', 'Reset' ]
		].filter(([ handler ]) => this[handler]).map(([ handler, text ]) =>
			E('button', { 'class': 'cbi-button', 'data-handler': handler, 'click': ui.createHandlerFn(this, handler) }, [ text ]));

		if (footer.length)
			main.appendChild(E('div', { 'class': 'cbi-page-actions' }, footer));
	}

	map() {
		return document.querySelector('.cbi-map')?.instance;
	}

	handleSave() {
		return this.map()?.save() || Promise.resolve();
	}

	handleSaveApply(event) {
		return this.handleSave(event).then(() => ui.changes.apply());
	}

	handleReset() {
		return this.map()?.reset() || Promise.resolve();
	}
};

const network = {
	getNetworks: async () => (await ask('/networks', {})).networks.map(known => ({
		getName: () => known.name,
		getProtocol: () => known.proto,
		getIPAddr: () => known.address ?? null,
		getGatewayAddr: () => known.gateway ?? null,
		isUp: () => known.up !== false,
		getL3Device: () => ({ getName: () => known.device })
	}))
};

const modules = { 'baseclass': Base, dom, poll, rpc, ui, uci, view, network };
const loading = {};

/* Loads a module as LuCI does: its `'require …'` lines name what it is called with; what it returns is a class. */
function load(name) {
	if (modules[name])
		return Promise.resolve(modules[name]);

	return loading[name] ||= (async () => {
		const reply = await fetch('/luci-static/resources/%s.js'.format(name.replaceAll('.', '/')));

		if (!reply.ok)
			throw new Error('no module ' + name);

		const source = await reply.text();
		const required = [ ...source.matchAll(/^'require (\S+?)(?: as (\w+))?';$/gm) ]
			.map(([ , path, as ]) => [ path, as || path.replace(/\W/g, '_') ]);
		const values = await Promise.all(required.map(([ path ]) => load(path)));
		const made = new Function('window', 'document', 'L', ...required.map(([ , as ]) => as),
			source + '\n//# sourceURL=%s.js'.format(name))(window, document, window.L, ...values);

		return typeof made === 'function' ? new made() : made;
	})();
}

window.L = {
	env: {},
	resource: path => '/luci-static/resources/' + path,
	url: path => '/' + path,
	require: load,
	resolveDefault: (promise, value) => Promise.resolve(promise).catch(() => value),
	toArray: value => value === null || value === undefined ? [] : Array.isArray(value) ? value
		: String(value).trim() === '' ? [] : String(value).trim().split(/\s+/),
	hasViewPermission: () => env.readonly ? false : true,
	bind: (fn, self, ...args) => fn.bind(self, ...args)
};

env.calls = {};
env.applied = 0;
env.uci = uci;

window.standin.define = (name, value) => {
	modules[name] = value;
};
window.standin.classes = { Base, dom, ui, uci };
})();
