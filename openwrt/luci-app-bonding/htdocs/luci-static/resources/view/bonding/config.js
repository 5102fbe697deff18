'use strict';
'require view';
'require dom';
'require form';
'require network';
'require ui';
'require uci';
'require bonding.bond as bond';
'require bonding.options as options';
'require bonding.values as values';

/*
 * The set-up: one line of the server and a choice of internet lines for a beginner; below, every option of the daemon's
 * schema. What an option means, takes and defaults to is the daemon's own word: a new option shows up by itself.
 */

const CONFIG = 'bonding';

/* The schema's words are plain text with code in backticks; LuCI's descriptions are HTML. */
function asHtml(text) {
	return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/`([^`]*)`/g, '<code>$1</code>');
}

/* A boolean as LuCI's check boxes want it. */
const FLAGS = { '1': '1', 'on': '1', 'true': '1', 'yes': '1', 'enabled': '1', '0': '0', 'off': '0', 'false': '0', 'no': '0', 'disabled': '0' };

const quoted = text => "'" + String(text).replace(/'/g, "'\\''") + "'";

/* A key that is there is not shown: an empty field keeps it, a typed one replaces it, a button takes it away. */
const SecretValue = form.Value.extend({
	password: true,

	load: () => null,
	cfgvalue: () => null,
	remove() {},

	renderWidget(sid, index, _value) {
		const there = uci.get(CONFIG, sid, this.option) != null;

		this.placeholder = there ? _('set; type a new one to replace it') : _('none');

		const node = form.Value.prototype.renderWidget.call(this, sid, index, null);

		return there && !this.map.readonly ? E('div', [ node, ' ', E('button', {
			'class': 'btn cbi-button cbi-button-remove',
			'click': ui.createHandlerFn(this, () => {
				uci.unset(CONFIG, sid, this.option);

				return this.map.save(null, true);
			})
		}, [ _('Remove this key') ]) ]) : node;
	}
});

return view.extend({
	load() {
		return Promise.all([
			bond.options(), uci.load(CONFIG), network.getNetworks(), L.resolveDefault(bond.publicKey(), null)
		]).catch(error => ({ failed: error.message }));
	},

	render(loaded) {
		bond.style();

		if (loaded.failed) {
			this.handleSave = this.handleSaveApply = this.handleReset = null;

			return E('div', { 'class': 'bd' }, [
				E('h2', [ _('Bonding') ]),
				E('div', { 'class': 'cbi-section bd-trouble bd-off' }, [
					E('h3', [ bond.dot('off'), _('The set-up cannot be shown') ]),
					E('p', [ _('The configuration holds keys: reading it takes an account that may change it.') ]),
					E('pre', [ loaded.failed ])
				])
			]);
		}

		[ this.schema, , this.networks, this.key ] = loaded;
		this.mayAct = L.hasViewPermission() !== false;

		/* Sections that there is one of are there, so that their options can be set. */
		for (const section of this.schema.sections)
			if (section.single && !uci.sections(CONFIG, section.type).length)
				uci.add(CONFIG, section.type, section.type === 'interface' ? 'bond' : section.type);

		this.map = new form.Map(CONFIG);
		this.map.tabbed = true;
		this.notes = E('div');

		for (const section of this.schema.sections)
			this.addSection(section);

		return this.map.render().then(node => {
			this.look();

			return E('div', { 'class': 'bd' }, [
				E('h2', [ _('Bonding') ]), this.mayAct ? this.joinCard() : '', this.notes, node
			]);
		});
	},

	addSection(spec) {
		const known = options.section(spec.type);
		const section = this.map.section(form.TypedSection, spec.type, known.title, asHtml(_(spec.help)));
		const order = known.tabs.flatMap(([ , , names ]) => names || []);
		const rank = option => order.includes(option.name) ? order.indexOf(option.name) : order.length;

		section.anonymous = spec.single || !!known.anonymous;
		section.addremove = !spec.single;
		section.addbtntitle = known.add;
		section.sortable = spec.type === 'rule';

		for (const [ name, title ] of known.tabs)
			section.tab(name, title);

		if (spec.type === 'globals')
			this.addKey(section);

		for (const option of spec.options.slice().sort((a, b) => rank(a) - rank(b))) {
			const tab = known.tabs.find(([ , , names ]) => names?.includes(option.name));

			this.addOption(section, tab ? tab[0] : option.advanced ? 'advanced' : 'general', spec.type, option);
		}
	},

	addOption(section, tab, type, spec) {
		const widget = spec.list ? form.DynamicList
			: { bool: form.Flag, enum: form.ListValue, secret: SecretValue }[spec.type] || form.Value;
		const o = section.taboption(tab, widget, spec.name, options.title(type, spec.name), this.describe(spec));

		o.rmempty = !spec.required;
		o.optional = !spec.required;

		if (spec.type === 'bool') {
			o.default = FLAGS[spec.default] || '0';
			o.load = sid => {
				const value = uci.get(CONFIG, sid, spec.name);

				return value == null ? null : FLAGS[value] || value;
			};

			/* A daemon that is switched on says so in its file. */
			if (type === 'globals' && spec.name === 'enabled')
				o.rmempty = o.optional = false;

			return;
		}

		if (spec.default != null)
			o.placeholder = spec.default;

		if (spec.values && !spec.list) {
			if (!spec.required)
				o.value('', spec.default ? _('default (%s)').format(spec.default) : _('default'));

			for (const choice of spec.values)
				o.value(choice.value, choice.help ? '%s – %s'.format(choice.value, _(choice.help)) : choice.value);
		}

		if (type === 'link' && spec.name === 'interface')
			for (const net of this.networks)
				if (net.getName() !== 'loopback')
					o.value(net.getName());

		if (type === 'rule' && spec.name === 'link')
			for (const link of uci.sections(CONFIG, 'link'))
				o.value(link['.name']);

		o.validate = (_sid, text) => {
			const words = spec.list ? String(text ?? '').trim().split(/\s+/) : [ String(text ?? '') ];

			return words.every(word => word === '' || values.accepts(type, spec, word))
				|| _('Expected: %s').format(_(spec.expected));
		};
	},

	describe(spec) {
		const text = [ asHtml(_(spec.help)) ];

		if (spec.unit && spec.type !== 'integer')
			text.push(_('A plain number is in %s.').format(_(spec.unit)));
		else if (spec.unit)
			text.push(_('In %s.').format(_(spec.unit)));

		return text.join(' ');
	},

	/* This router's public key, which the server must know, and the button that makes a private one. */
	addKey(section) {
		const o = section.taboption('general', form.DummyValue, '_public_key', _('Public key of this router'),
			_('The server must know it. The private key stays in its file and is never shown.'));

		o.load = () => null;
		o.renderWidget = () => {
			const shown = E('code', { 'data-key': '' }, [ this.key?.public_key || _('none yet') ]);
			const make = replace => bond.generateKey(replace).then(answer => {
				this.key = answer;
				dom.content(shown, [ answer.public_key ]);
				dom.content(button, [ _('Make a new key') ]);
			}).catch(error => ui.addNotification(null, E('p', [ error.message ]), 'error'));
			const button = E('button', {
				'class': 'btn cbi-button', 'disabled': this.mayAct ? null : '',
				'click': ui.createHandlerFn(this, () => this.key ? bond.confirm(_('Make a new key?'),
					_('The server refuses this router until it is told the new public key.'), _('Make a new key'), () => make(true)) : make(false))
			}, [ this.key ? _('Make a new key') : _('Make a key') ]);

			return E('div', { 'class': 'bd-key-line' }, [ shown, ' ', button ]);
		};
	},

	/* Interfaces that may lead to the internet: not this machine's own, nor one without a way out. */
	lines() {
		const used = uci.sections(CONFIG, 'link').filter(link => FLAGS[link.enabled ?? '1'] === '1').map(link => link.interface);
		const own = uci.sections(CONFIG, 'interface').map(section => section.ifname || 'bond0');

		return this.networks.map(net => ({
			name: net.getName(),
			text: [ net.getProtocol(), net.getIPAddr() ].filter(Boolean).join(', '),
			way: !!net.getGatewayAddr(),
			used: used.includes(net.getName()),
			none: [ 'none', 'dhcpv6', 'static' ].includes(net.getProtocol()),
			device: net.getL3Device()?.getName()
		})).filter(line => line.name !== 'loopback' && !own.includes(line.device) && (line.used || line.way || !line.none));
	},

	isSetUp: () => uci.sections(CONFIG, 'peer').length > 0 || uci.sections(CONFIG, 'interface').some(section => section.public_key),

	joinCard() {
		const known = this.isSetUp();
		const lines = this.lines();
		const line = E('textarea', { 'rows': 3, 'spellcheck': 'false', 'autocomplete': 'off', 'placeholder': 'bonding://…', 'aria-label': _('The line that the server has printed') });
		const boxes = lines.map(({ name, way, used }) => E('input', { 'type': 'checkbox', 'value': name, 'checked': used || (!known && way) ? '' : null }));
		const result = E('div', { 'class': 'bd-joined', 'role': 'status' });
		const choice = E('div', [
			E('div', { 'class': 'bd-step' }, [ _('2. Choose the internet lines to join:') ]),
			E('div', { 'class': 'bd-wans' }, lines.length ? lines.map(({ name, text }, index) =>
				E('label', [ boxes[index], E('span', [ name, ' ', E('span', { 'class': 'bd-dim' }, [ text ]) ]) ]))
				: [ E('span', { 'class': 'bd-dim' }, [ _('There is no interface that leads to the internet.') ]) ])
		]);
		const name = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'value': this.freeName(), 'aria-label': _('Name of the server') });
		const beside = E('input', { 'type': 'checkbox', 'change': ({ target }) => {
			choice.hidden = target.checked;
		} });
		const join = () => this.join(line.value.trim(), boxes.filter(box => box.checked).map(box => box.value), beside.checked ? name.value.trim() : null, result)
			.then(() => {
				line.value = '';
			})
			.catch(error => dom.content(result, E('div', { 'class': 'alert-message error' }, [ E('p', { 'style': 'white-space: pre-line' }, [ error.message ]) ])));

		return E('details', { 'class': 'cbi-section bd-join', 'open': known ? null : '' }, [
			E('summary', [ known ? _('Join another server with one line') : _('Join a server with one line') ]),
			E('div', { 'class': 'bd-step' }, [ _('1. On the server, "bonding server add-peer NAME" prints a line. Paste it here:') ]),
			line,
			uci.sections(CONFIG, 'interface').some(section => section.public_key) ? E('div', { 'class': 'bd-step' }, [
				E('label', [ beside, ' ', _('Keep the present server, and go to this one when it does not answer. Name of this one:') ]), ' ', name
			]) : '',
			choice,
			E('div', { 'class': 'bd-actions' }, [
				E('button', { 'class': 'btn cbi-button cbi-button-apply', 'click': ui.createHandlerFn(this, join) }, [ _('Join') ])
			]),
			result
		]);
	},

	/* For a server beside those that are set up. */
	freeName() {
		const taken = uci.sections(CONFIG).map(section => section['.name']);
		let number = 2;

		while (taken.includes(`server${number}`))
			number++;

		return `server${number}`;
	},

	/*
	 * Has the daemon read the line and write the configuration; then starts it if it does not run. With a name the
	 * line's server comes beside those that are set up, over the same lines.
	 */
	join(line, wans, name, result) {
		dom.content(result, null);

		if (!/^bonding:\/\/\S+$/.test(line))
			return Promise.reject(new Error(_('This is not the line of a server: it starts with bonding:// and is in one piece.')));

		if (name != null && !/^\w+$/.test(name))
			return Promise.reject(new Error(_('The name of a server has letters, digits and _ only.')));

		if (name == null && !wans.length)
			return Promise.reject(new Error(_('Choose at least one line.')));

		return bond.join(line, wans, name).then(answer => bond.status(0x7fffffff)
			.then(status => status.running ? null : bond.restart())
			.then(() => {
				dom.content(result, E('div', { 'class': 'alert-message success' }, [
					E('p', { 'style': 'white-space: pre-line' }, [ this.report(answer.message) ]),
					E('a', { 'class': 'btn cbi-button cbi-button-action', 'href': L.url('admin/network/bonding/status') }, [ _('See the status') ])
				]));
				uci.unload(CONFIG);

				return L.resolveDefault(bond.publicKey(), null);
			})
			.then(key => {
				this.key = key;

				return this.map.load().then(() => this.map.reset()).then(() => this.look());
			}));
	},

	/* What `bonding join` said, without what this page does itself. */
	report(message) {
		return [ _('This router has joined the server.') ].concat(String(message || '').split('\n')
			.filter(text => !/^(written|start it|the running daemon has)/.test(text))).join('\n');
	},

	/* The configuration as it would be saved. */
	text() {
		let text = '';

		for (const section of uci.sections(CONFIG)) {
			text += '\nconfig %s%s\n'.format(section['.type'], section['.anonymous'] ? '' : ' ' + quoted(section['.name']));

			for (const name in section)
				if (!name.startsWith('.'))
					for (const value of [].concat(section[name]))
						text += '\t%s %s %s\n'.format(Array.isArray(section[name]) ? 'list' : 'option', name, quoted(value));
		}

		return text;
	},

	/* Asks the daemon about the whole: how options go together is not a form's business. */
	look() {
		return bond.check(this.text()).then(({ problems }) => {
			const say = problem => [ [ problem.section, problem.option ].filter(Boolean).join(', '), problem.message ].filter(Boolean).join(': ');
			const errors = problems.filter(problem => problem.severity === 'error').map(say);
			/* Before anything is set up there is the card above for what is missing. */
			const others = problems.filter(problem => problem.severity === 'warning' || (problem.severity !== 'error' && this.isSetUp())).map(say);
			const note = (kind, title, list) => list.length ? E('div', { 'class': 'alert-message ' + kind }, [
				E('p', [ title ]), E('ul', list.map(text => E('li', [ text ])))
			]) : '';

			dom.content(this.notes, [
				note('error', _('The daemon refuses this configuration:'), errors),
				note('warning', _('Worth a look:'), others)
			]);

			return errors;
		});
	},

	handleSave() {
		return this.map.save(() => this.look().then(errors => {
			if (errors.length)
				throw new Error(errors.join('\n'));
		}));
	}
});
