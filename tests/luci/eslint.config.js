import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import js from '@eslint/js';
import globals from 'globals';

/* Run from the top of the tree: `npm run lint`. */
const HERE = path.dirname(fileURLToPath(import.meta.url));
const PAGES = 'openwrt/luci-app-bonding/htdocs';
const TOP = path.resolve(HERE, '../..');

const rules = {
	...js.configs.recommended.rules,
	'no-unused-vars': [ 'error', { argsIgnorePattern: '^_', caughtErrors: 'none' } ],
	'no-var': 'error',
	'prefer-const': 'error',
	'eqeqeq': [ 'error', 'smart' ],
	'no-eval': 'error',
	'no-shadow': 'error',
	'consistent-return': 'error',
	'no-implicit-globals': 'off'
};

/* LuCI's views are bodies of functions: they return a class, and their `'require …'` lines name their parameters. */
const views = fs.readdirSync(path.join(TOP, PAGES), { recursive: true }).filter(name => name.endsWith('.js')).map(name => {
	const source = fs.readFileSync(path.join(TOP, PAGES, name), 'utf8');
	const required = [ ...source.matchAll(/^'require (\S+?)(?: as (\w+))?';$/gm) ].map(([ , module, as ]) => as || module.replace(/\W/g, '_'));

	return {
		files: [ `${PAGES}/${name}` ],
		languageOptions: {
			ecmaVersion: 2021,
			sourceType: 'script',
			parserOptions: { ecmaFeatures: { globalReturn: true, impliedStrict: true } },
			globals: {
				...globals.browser, E: 'readonly', L: 'readonly', _: 'readonly', N_: 'readonly',
				...Object.fromEntries(required.map(as => [ as, 'readonly' ]))
			}
		},
		rules: { ...rules, 'no-redeclare': 'off' }
	};
});

export default [
	{ linterOptions: { reportUnusedDisableDirectives: 'error' } },
	...views,
	{
		files: [ 'tests/luci/*.js' ],
		languageOptions: { ecmaVersion: 2024, sourceType: 'module', globals: { ...globals.node, window: 'readonly', document: 'readonly', L: 'readonly', Event: 'readonly' } },
		rules
	},
	{
		files: [ 'tests/luci/standin/*.js' ],
		languageOptions: { ecmaVersion: 2024, sourceType: 'script', globals: { ...globals.browser, E: 'readonly', L: 'readonly' } },
		rules
	}
];
