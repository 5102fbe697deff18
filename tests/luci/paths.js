/* Where things are. */

import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const HERE = path.dirname(fileURLToPath(import.meta.url));
export const ROOT = path.resolve(HERE, '../..');
export const APP = path.join(ROOT, 'openwrt/luci-app-bonding');
export const RESOURCES = path.join(APP, 'htdocs/luci-static/resources');
export const PROGRAM = process.env.BONDING || path.join(ROOT, 'target/simulation/bonding');
export const PICTURES = path.join(ROOT, 'target/luci');
