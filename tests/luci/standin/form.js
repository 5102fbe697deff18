/*
 * The part of LuCI's forms that the set-up page uses. Loading, validating, writing and removing follow LuCI: an option
 * that is not valid stops the saving, an empty one is removed, one that equals the default of a flag is removed, too.
 */
(() => {
'use strict';

const { Base, dom, ui, uci } = window.standin.classes;

class AbstractValue extends Base {
	constructor(map, section, option, title, description) {
		super();
		Object.assign(this, { map, section, option, title, description, rmempty: true, default: null, keylist: [], vallist: [], deps: [] });
		this.nodes = {};
	}

	value(key, text) {
		this.keylist.push(String(key));
		this.vallist.push(text ?? String(key));
	}

	depends(option, value) {
		this.deps.push(typeof option === 'object' ? option : { [option]: value });
	}

	load(sid) {
		return uci.get(this.map.config, sid, this.option);
	}

	cfgvalue(sid) {
		return this.loaded?.[sid] ?? null;
	}

	validate() {
		return true;
	}

	isActive(sid) {
		return !this.deps.length || this.deps.some(dep => Object.entries(dep).every(([ name, wanted ]) => {
			const other = this.section.children.find(child => child.option === name);

			return other?.formvalue(sid) === wanted;
		}));
	}

	formvalue(sid) {
		const input = this.nodes[sid]?.querySelector('input, select, textarea');

		return input ? input.value : null;
	}

	problem(sid) {
		const value = this.formvalue(sid);

		if (value === null || value === '')
			return this.rmempty || this.optional ? null : 'is missing';

		const verdict = this.validate(sid, value);

		return verdict === true ? null : verdict;
	}

	parse(sid) {
		/* A section that was just added has no fields yet. */
		if (!this.nodes[sid])
			return;

		if (!this.isActive(sid)) {
			this.remove(sid);

			return;
		}

		const problem = this.problem(sid);

		this.mark(sid, problem);

		if (problem)
			throw new TypeError('Option "%s" contains an invalid input value. %s'.format(this.title, problem));

		const value = this.formvalue(sid);
		const empty = value === null || value === '' || (Array.isArray(value) && !value.length);

		if (empty || (this instanceof Flag && this.rmempty && value === this.default))
			this.remove(sid);
		else if (String(value) !== String(this.cfgvalue(sid) ?? ''))
			this.write(sid, value);
	}

	mark(sid, problem) {
		const node = this.nodes[sid];

		node?.classList.toggle('cbi-value-error', !!problem);
		node?.querySelectorAll('input').forEach(input => input.classList.toggle('cbi-input-invalid', !!problem));

		if (problem)
			node?.setAttribute('data-problem', problem);
		else
			node?.removeAttribute('data-problem');
	}

	write(sid, value) {
		uci.set(this.map.config, sid, this.option, value);
	}

	remove(sid) {
		uci.unset(this.map.config, sid, this.option);
	}

	async render(sid) {
		const widget = await this.renderWidget(sid, 0, this.cfgvalue(sid));
		const field = E('div', { 'class': 'cbi-value-field' }, [ widget ]);

		if (this.description)
			field.appendChild(E('div', { 'class': 'cbi-value-description' }, this.description));

		const node = E('div', { 'class': 'cbi-value', 'data-name': this.option, 'data-sid': sid }, [
			E('label', { 'class': 'cbi-value-title' }, this.title), field
		]);

		node.addEventListener('input', () => {
			this.mark(sid, this.problem(sid));
			this.map.checkDepends();
		});

		return this.nodes[sid] = node;
	}
}

class Value extends AbstractValue {
	renderWidget(_sid, _index, value) {
		return E('input', {
			'type': this.password ? 'password' : 'text', 'value': value ?? this.default ?? '', 'placeholder': this.placeholder, 'class': 'cbi-input-text'
		});
	}
}

class TextValue extends AbstractValue {
	renderWidget(_sid, _index, value) {
		return E('textarea', { 'rows': this.rows }, [ value ?? '' ]);
	}
}

class ListValue extends AbstractValue {
	renderWidget(_sid, _index, value) {
		const chosen = value ?? this.default ?? '';

		return E('select', { 'class': 'cbi-input-select' }, this.keylist.map((key, index) =>
			E('option', { 'value': key, 'selected': key === String(chosen) ? '' : null }, [ this.vallist[index] ])));
	}
}

class Flag extends AbstractValue {
	constructor(...args) {
		super(...args);
		this.enabled = '1';
		this.disabled = '0';
		this.default = '0';
	}

	renderWidget(_sid, _index, value) {
		return E('input', { 'type': 'checkbox', 'checked': (value ?? this.default) === this.enabled ? '' : null });
	}

	formvalue(sid) {
		return this.nodes[sid]?.querySelector('input').checked ? this.enabled : this.disabled;
	}

	problem() {
		return null;
	}
}

class DynamicList extends AbstractValue {
	renderWidget(sid, _index, value) {
		const list = E('div', { 'class': 'cbi-dynlist' });
		const add = text => list.insertBefore(E('div', { 'class': 'item', 'click': event => event.currentTarget.remove() }, [
			E('span', [ text ]), E('input', { 'type': 'hidden', 'value': text })
		]), list.lastChild);
		const entry = E('input', { 'type': 'text', 'placeholder': this.placeholder, 'keydown': event => {
			if (event.key !== 'Enter' || !entry.value)
				return;

			const verdict = this.validate(sid, entry.value);

			this.mark(sid, verdict === true ? null : verdict);

			if (verdict === true) {
				add(entry.value);
				entry.value = '';
			}
		} });

		list.appendChild(E('div', { 'class': 'add-item' }, [ entry ]));
		L.toArray(value).forEach(add);

		return list;
	}

	formvalue(sid) {
		return [ ...this.nodes[sid]?.querySelectorAll('input[type=hidden]') || [] ].map(input => input.value);
	}

	problem(sid) {
		const typed = this.nodes[sid]?.querySelector('.add-item input').value;

		for (const value of this.formvalue(sid).concat(typed || [])) {
			const verdict = this.validate(sid, value);

			if (verdict !== true)
				return verdict;
		}

		return this.rmempty || this.formvalue(sid).length ? null : 'is missing';
	}
}

class DummyValue extends AbstractValue {
	renderWidget(_sid, _index, value) {
		return this.rawhtml ? E('div', value) : E('div', [ value ?? '' ]);
	}

	parse() {}
}

class Section extends Base {
	constructor(map, type, title, description) {
		super();
		Object.assign(this, { map, sectiontype: type, title, description, children: [], tabs: [] });
	}

	tab(name, title, description) {
		this.tabs.push({ name, title, description });
	}

	option(kind, ...args) {
		const option = new kind(this.map, this, ...args);

		this.children.push(option);

		return option;
	}

	taboption(tab, kind, ...args) {
		if (!this.tabs.some(known => known.name === tab))
			throw new Error('no tab ' + tab);

		return Object.assign(this.option(kind, ...args), { tab });
	}

	async load() {
		for (const sid of this.cfgsections())
			for (const option of this.children)
				(option.loaded ||= {})[sid] = await option.load(sid);
	}

	parse() {
		for (const sid of this.cfgsections())
			for (const option of this.children)
				option.parse(sid);
	}

	async renderSection(sid) {
		const body = E('div', { 'class': 'cbi-section-node', 'id': 'cbi-%s-%s'.format(this.map.config, sid), 'data-section-id': sid });

		if (!this.tabs.length) {
			for (const option of this.children)
				body.appendChild(await option.render(sid));

			return body;
		}

		const panes = new Map();
		const menu = E('ul', { 'class': 'cbi-tabmenu' });

		for (const { name, title } of this.tabs) {
			const options = this.children.filter(option => option.tab === name);

			if (!options.length)
				continue;

			const pane = E('div', { 'data-tab': name });

			for (const option of options)
				pane.appendChild(await option.render(sid));

			panes.set(name, pane);
			menu.appendChild(E('li', { 'data-tab': name, 'click': () => show(name) }, [ E('a', { 'href': '#' }, [ title ]) ]));
		}

		const show = chosen => {
			for (const [ name, pane ] of panes)
				pane.hidden = name !== chosen;

			menu.querySelectorAll('li').forEach(item => item.className = item.dataset.tab === chosen ? 'cbi-tab' : 'cbi-tab-disabled');
		};

		show(panes.keys().next().value);
		body.append(menu, ...panes.values());

		return body;
	}

	async render() {
		const node = E('div', { 'class': 'cbi-section', 'data-tab': this.sectiontype, 'data-tab-title': this.title, 'id': 'cbi-%s-%s'.format(this.map.config, this.sectiontype) });

		if (this.title && !this.map.tabbed)
			node.appendChild(E('h3', [ this.title ]));

		if (this.description)
			node.appendChild(E('div', { 'class': 'cbi-section-descr' }, this.description));

		for (const sid of this.cfgsections()) {
			if (this.addremove)
				node.appendChild(E('div', { 'class': 'cbi-section-remove right' }, [
					E('button', { 'class': 'cbi-button', 'data-remove': sid, 'click': async () => {
						uci.remove(this.map.config, sid);
						await this.map.save(null, true);
					} }, [ 'Delete' ])
				]));

			if (this.addremove && !this.anonymous)
				node.appendChild(E('h3', [ sid ]));

			node.appendChild(await this.renderSection(sid));
		}

		if (this.addremove) {
			const name = E('input', { 'type': 'text' });

			node.appendChild(E('div', { 'class': 'cbi-section-create' }, [
				this.anonymous ? '' : name,
				E('button', { 'class': 'cbi-button cbi-button-add', 'click': async () => {
					uci.add(this.map.config, this.sectiontype, this.anonymous ? null : name.value);
					await this.map.save(null, true);
				} }, [ this.addbtntitle || 'Add' ])
			]));
		}

		return node;
	}
}

class NamedSection extends Section {
	constructor(map, name, ...rest) {
		super(map, ...rest);
		this.section = name;
	}

	cfgsections() {
		return uci.section(this.map.config, this.section) ? [ this.section ] : [];
	}
}

class TypedSection extends Section {
	cfgsections() {
		return uci.sections(this.map.config, this.sectiontype).map(section => section['.name']);
	}
}

class FormMap extends Base {
	constructor(config, title, description) {
		super();
		Object.assign(this, { config, title, description, children: [] });
		this.root = E('div', { 'class': 'cbi-map', 'id': 'cbi-' + config });
		this.root.instance = this;
		this.root.addEventListener('change', () => this.checkDepends());
	}

	section(kind, ...args) {
		const section = new kind(this, ...args);

		this.children.push(section);

		return section;
	}

	async load() {
		await uci.load(this.config);

		for (const section of this.children)
			await section.load();
	}

	async render() {
		return this.renderContents(true);
	}

	async renderContents(again) {
		if (again)
			await this.load();

		const active = this.root.querySelector('.cbi-tabmenu > .cbi-tab[data-section]')?.dataset.section;
		const nodes = [];

		for (const section of this.children)
			nodes.push(await section.render());

		dom.content(this.root, this.title ? E('h2', [ this.title ]) : null);

		if (this.tabbed) {
			const menu = E('ul', { 'class': 'cbi-tabmenu map' });
			const show = chosen => {
				nodes.forEach(node => node.hidden = node !== chosen);
				menu.childNodes.forEach((item, index) => item.className = nodes[index] === chosen ? 'cbi-tab' : 'cbi-tab-disabled');
			};

			nodes.forEach(node => menu.appendChild(E('li', { 'data-section': node.dataset.tab, 'click': () => show(node) },
				[ E('a', { 'href': '#' }, [ node.dataset.tabTitle ]) ])));
			this.root.appendChild(menu);
			show(nodes.find(node => node.dataset.tab === active) || nodes[0]);
		}

		this.root.append(...nodes);
		this.checkDepends();

		return this.root;
	}

	checkDepends() {
		for (const section of this.children)
			for (const sid of section.cfgsections())
				for (const option of section.children)
					if (option.nodes[sid])
						option.nodes[sid].hidden = !option.isActive(sid);
	}

	async save(then, silent) {
		try {
			for (const section of this.children)
				section.parse();

			await then?.();
			await uci.save();
			await this.load();
		}
		catch (error) {
			if (!silent)
				ui.showModal('Save error', [ E('p', [ E('em', { 'style': 'white-space: pre-wrap' }, [ error.message ]) ]),
					E('button', { 'class': 'cbi-button', 'click': () => ui.hideModal() }, [ 'Dismiss' ]) ]);

			throw error;
		}
		finally {
			await this.renderContents();
		}
	}

	async reset() {
		uci.unload(this.config);

		return this.renderContents(true);
	}
}

window.standin.define('form', { Map: FormMap, NamedSection, TypedSection, Value, TextValue, ListValue, Flag, DynamicList, DummyValue });
})();
