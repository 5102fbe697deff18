/* The translations are whole, and what is installed is small. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { LANGUAGES, extract, printPo, readTemplate, readTranslation } from './catalog.js';
import { APP } from './paths.js';

const strings = extract().map(([ text ]) => text);
const marks = text => (text.match(/%[sdf%]|`[^`]*`/g) || []).sort();

test('the template has every string of the pages and of the schema, and no other', () => {
	assert.ok(strings.length > 400);
	assert.deepEqual(readTemplate(), printPo(extract(), null, {}), 'run `node catalog.js` in tests/luci, and translate what is new');
});

for (const language of LANGUAGES) {
	test(`${language} is complete`, () => {
		const known = readTranslation(language);

		assert.deepEqual(strings.filter(text => !known[text]), [], 'not translated');
		assert.deepEqual(Object.entries(known).filter(([ text, translated ]) => text && translated && marks(text).join() !== marks(translated).join()), [],
			'the same places for values, the same code');
		/* Words that are alike in both languages are few. */
		assert.ok(Object.entries(known).filter(([ text, translated ]) => text && text === translated).length < 40);
	});
}

test('no string of the pages is without a translator\'s hand', () => {
	const folder = path.join(APP, 'htdocs/luci-static/resources');
	const bare = [];

	for (const name of fs.readdirSync(folder, { recursive: true }).filter(file => file.endsWith('.js')))
		fs.readFileSync(path.join(folder, name), 'utf8').split('\n').forEach((line, index) => {
			/* A sentence: two words, and not in `_()`. */
			for (const [ , before, text ] of line.matchAll(/(.{0,2})'([A-Z][a-z]+ [a-z][^']*)'/g))
				if (!before.endsWith('_('))
					bare.push(`${name}:${index + 1}: ${text}`);
		});

	assert.deepEqual(bare, []);
});

test('less than 40 KB on flash', () => {
	const size = folder => fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
		.reduce((total, entry) => total + gzipSync(fs.readFileSync(path.join(entry.parentPath ?? entry.path, entry.name)), { level: 9 }).length, 0);
	const total = size(path.join(APP, 'htdocs')) + size(path.join(APP, 'root'));

	assert.ok(total < 40e3, `${total} bytes`);
	console.log(`${total} bytes, gzipped`);
});
