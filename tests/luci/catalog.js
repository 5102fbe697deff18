/*
 * The strings of the pages: from their JavaScript, from LuCI's menu and rights, and from the daemon's schema, whose words
 * the set-up page shows. `node catalog.js` renews the template and the translations in openwrt/luci-app-bonding/po.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { APP, PROGRAM, RESOURCES } from './paths.js';

export const LANGUAGES = [ 'de', 'fr' ];

const TEMPLATE = path.join(APP, 'po/templates/bonding.pot');
const translation = language => path.join(APP, 'po', language, 'bonding.po');

/* Each string with where it is: `[ [ text, [ place … ] ] … ]`. */
export function extract() {
	const found = new Map();
	const add = (text, place) => {
		if (!found.has(text))
			found.set(text, []);

		if (!found.get(text).includes(place))
			found.get(text).push(place);
	};

	for (const name of fs.readdirSync(RESOURCES, { recursive: true }).filter(file => file.endsWith('.js')).sort()) {
		const source = fs.readFileSync(path.join(RESOURCES, name), 'utf8');

		for (const [ , text ] of source.matchAll(/\b_\(\s*'((?:[^'\\]|\\.)*)'\s*\)/g))
			add(text.replace(/\\(.)/g, '$1'), `htdocs/luci-static/resources/${name}`);
	}

	const json = file => JSON.parse(fs.readFileSync(path.join(APP, 'root/usr/share', file), 'utf8'));

	for (const { title } of Object.values(json('luci/menu.d/luci-app-bonding.json')))
		add(title, 'root/usr/share/luci/menu.d/luci-app-bonding.json');

	for (const { description } of Object.values(json('rpcd/acl.d/luci-app-bonding.json')))
		add(description, 'root/usr/share/rpcd/acl.d/luci-app-bonding.json');

	for (const text of schemaTexts())
		add(text, 'bonding options');

	return [ ...found ];
}

/* What the set-up page takes from the schema. */
export function schemaTexts() {
	const { sections } = JSON.parse(execFileSync(PROGRAM, [ 'options', '--json' ], { encoding: 'utf8', maxBuffer: 8 << 20 }));
	const texts = new Set();

	for (const section of sections) {
		texts.add(section.help);

		for (const option of section.options) {
			texts.add(option.help);
			(option.values || []).filter(choice => choice.help).forEach(choice => texts.add(choice.help));

			if (option.unit)
				texts.add(option.unit);

			if (![ 'bool', 'enum' ].includes(option.type))
				texts.add(option.expected);
		}
	}

	return [ ...texts ];
}

const quote = text => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;
const unquote = text => text.slice(1, -1).replace(/\\(.)/g, (_all, letter) => letter === 'n' ? '\n' : letter);

/* `{ msgid: msgstr }` of a translation. */
export function readPo(file) {
	const entries = {};
	let id = null, at = null;

	for (const line of fs.existsSync(file) ? fs.readFileSync(file, 'utf8').split('\n') : []) {
		const [ , keyword, text ] = /^(?:(msgid|msgstr) )?(".*")$/.exec(line) || [];

		if (!text)
			continue;

		if (keyword === 'msgid') {
			id = unquote(text);
			at = keyword;
		}
		else if (keyword === 'msgstr') {
			entries[id] = unquote(text);
			at = keyword;
		}
		else if (at === 'msgid') {
			id += unquote(text);
		}
		else {
			entries[id] += unquote(text);
		}
	}

	return entries;
}

export const readTranslation = language => readPo(translation(language));

export function printPo(strings, language, known) {
	const head = language === null ? [ 'msgid ""', 'msgstr "Content-Type: text/plain; charset=UTF-8"' ]
		: [ 'msgid ""', 'msgstr ""', `"Language: ${language}\\n"`, '"MIME-Version: 1.0\\n"', '"Content-Type: text/plain; charset=UTF-8\\n"', '"Content-Transfer-Encoding: 8bit\\n"' ];
	const body = strings.slice().sort(([ a ], [ b ]) => a < b ? -1 : 1).map(([ text, places ]) => [
		...places.map(place => `#: ${place}`), `msgid ${quote(text)}`, `msgstr ${quote(known[text] || '')}`
	].join('\n'));

	return [ head.join('\n'), ...body ].join('\n\n') + '\n';
}

export const readTemplate = () => fs.readFileSync(TEMPLATE, 'utf8');

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
	const strings = extract();

	fs.mkdirSync(path.dirname(TEMPLATE), { recursive: true });
	fs.writeFileSync(TEMPLATE, printPo(strings, null, {}));

	for (const language of LANGUAGES) {
		const known = readTranslation(language);

		fs.mkdirSync(path.dirname(translation(language)), { recursive: true });
		fs.writeFileSync(translation(language), printPo(strings, language, known));
		console.log(`${language}: ${strings.filter(([ text ]) => !known[text]).length} of ${strings.length} strings are not translated`);
	}
}
