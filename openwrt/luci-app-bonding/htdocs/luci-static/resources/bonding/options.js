'use strict';
'require baseclass';

/*
 * How the set-up page arranges the daemon's options: the tabs of each type of section, and a title for each option. What an
 * option means, takes and defaults to is in the daemon's schema, and so is every option that is not named here: it comes
 * under its own name, in the tab of the general or of the advanced ones.
 */

/* The tabs of each type of section with the options that belong there; the rest is general, or advanced. */
const SECTIONS = {
	globals: { title: _('General'), tabs: [
		[ 'general', _('General'), [ 'enabled', 'cipher', 'log_level' ] ],
		[ 'server', _('As a server'), [ 'listen_port', 'listen_address', 'public_address', 'nat', 'forwarding', 'trusted_network', 'client_to_client' ] ],
		[ 'advanced', _('Advanced'), [ 'role', 'mode' ] ]
	] },
	interface: { title: _('Bond'), tabs: [
		[ 'general', _('Server and addresses'), [ 'server', 'remote_port', 'public_key', 'preshared_key', 'ipaddr', 'netmask', 'ip6addr', 'remote_ipaddr', 'ifname', 'server_timeout', 'server_return' ] ],
		[ 'traffic', _('Traffic'), [ 'policy', 'default_route', 'route', 'metric', 'resequence_tcp', 'resequence_udp', 'mtu', 'mss_clamp' ] ],
		[ 'watchdog', _('Watchdog'), [ 'watchdog', 'watchdog_ip', 'watchdog_period', 'watchdog_timeout', 'watchdog_action' ] ],
		[ 'scripts', _('Scripts'), [ 'preup', 'up', 'predown', 'down', 'link_script', 'hook_timeout' ] ],
		[ 'kernel', _('Kernel mode'), [ 'bond_mode', 'xmit_hash_policy', 'tunnel_type', 'miimon', 'arp_interval', 'arp_ip_target' ] ],
		[ 'advanced', _('Advanced') ]
	] },
	link: { title: _('Links'), add: _('Add a link'), tabs: [
		[ 'general', _('General'), [ 'enabled', 'interface', 'active', 'priority' ] ],
		[ 'limits', _('Limits'), [ 'upload', 'download', 'quota', 'quota_reset_day', 'weight' ] ],
		[ 'advanced', _('Advanced'), [ 'server', 'remote_port' ] ]
	] },
	server: { title: _('Other servers'), add: _('Add a server'), tabs: [
		[ 'general', _('General'), [ 'enabled', 'server', 'remote_port', 'public_key' ] ],
		[ 'advanced', _('Advanced') ]
	] },
	rule: { title: _('Rules'), add: _('Add a rule'), anonymous: true, tabs: [
		[ 'general', _('General') ],
		[ 'advanced', _('Advanced') ]
	] },
	redirect: { title: _('Port forwards'), add: _('Add a port forward'), tabs: [
		[ 'general', _('General') ],
		[ 'advanced', _('Advanced') ]
	] },
	peer: { title: _('Routers'), add: _('Add a router'), tabs: [
		[ 'general', _('General') ],
		[ 'advanced', _('Advanced') ]
	] }
};

/* By the option's name, or by `section.option` where the name means something else there. Where LuCI's own pages have a
   word for it, it is theirs. */
const TITLES = {
	'enabled': _('Enabled'), 'role': _('Role'), 'mode': _('Mode'),
	'private_key': _('Private key'), 'private_key_file': _('File of the private key'),
	'listen_port': _('Listen ports'), 'listen_address': _('Listen addresses'), 'public_address': _('Reached at'),
	'nat': _('Masquerading'), 'forwarding': _('Forward packets'), 'trusted_network': _('Networks without masquerading'),
	'client_to_client': _('Between routers'), 'metrics_port': _('Port for Prometheus'),
	'control_socket': _('Control socket'), 'control_group': _('Group of the control socket'), 'state_dir': _('Folder for state'),
	'log_level': _('Log level'), 'log_target': _('Log target'), 'cipher': _('Cipher'), 'rekey_interval': _('New keys every'),
	'table_base': _('First routing table'), 'mark_base': _('First firewall mark'), 'route_protocol': _('Protocol number of routes'),
	'rule_priority': _('Priority of routing rules'),

	'server': _('Server'), 'remote_port': _('Port of the server'), 'public_key': _('Public key of the server'),
	'preshared_key': _('Pre-shared key'), 'ipaddr': _('IPv4 address'), 'netmask': _('IPv4 netmask'), 'ip6addr': _('IPv6 address'),
	'server_timeout': _('Leave a silent server after'), 'server_return': _('Go back to a better server after'), 'dns': _('Name servers'),
	'interface.ipaddr': _('Addresses in the bond'), 'server.ipaddr': _('Addresses in the bond'), 'interface.ip6addr': _('IPv6 addresses in the bond'),
	'remote_ipaddr': _('Addresses of the server in the bond'), 'ifname': _('Device'),
	'policy': _('Policy'), 'default_route': _('Default route'), 'route': _('Routes'), 'metric': _('Metric'), 'mtu': _('MTU'),
	'resequence_tcp': _('Keep TCP in order'), 'resequence_udp': _('Keep UDP in order'), 'mss_clamp': _('MSS clamping'),
	'watchdog': _('Watchdog'), 'watchdog_ip': _('Addresses to ping'), 'watchdog_period': _('Ping every'), 'watchdog_timeout': _('Act after'),
	'watchdog_action': _('Action'), 'preup': _('Before it comes up'), 'up': _('After it came up'), 'predown': _('Before it goes down'),
	'down': _('After it went down'), 'link_script': _('Script for links'), 'hook_timeout': _('Time limit of scripts'),
	'bond_mode': _('Bonding mode'), 'xmit_hash_policy': _('Hash policy'), 'tunnel_type': _('Type of the tunnels'),
	'miimon': _('Carrier check every'), 'arp_interval': _('ARP probe every'), 'arp_ip_target': _('Addresses to probe by ARP'),

	'interface': _('Interface'), 'device': _('Device'), 'gateway': _('IPv4 gateway'), 'ip6gateway': _('IPv6 gateway'),
	'local_port': _('Local port'), 'routing_table': _('Routing table'), 'tunnel': _('Tunnel device'),
	'active': _('Used while the bond is down'), 'priority': _('Priority'), 'weight': _('Weight'),
	'upload': _('Upload limit'), 'download': _('Download limit'),
	'quota': _('Monthly volume'), 'quota_reset_day': _('Volume starts anew on day'), 'keepalive': _('Keepalive every'),

	'peer.public_key': _('Public key of the router'), 'invitation_expires': _('Invitation expires'),
	'peer.ipaddr': _('Addresses in the bond'), 'lan': _('Networks behind it'),

	'proto': _('Protocol'), 'src_ip': _('Source address'), 'dest_ip': _('Destination address'), 'src_port': _('Source port'),
	'dest_port': _('Destination port'), 'dscp': _('DSCP'), 'mark': _('Firewall mark'), 'link': _('Links'),
	'outside': _('Past the bond'), 'force': _('Copies at any cost'),

	'src_dport': _('External port'), 'src_dip': _('External IP address'),
	'redirect.dest_ip': _('Internal IP address'), 'redirect.dest_port': _('Internal port')
};

return baseclass.extend({
	/* Title, tabs and the text of the button for a type of section, also for one that is not known here. */
	section: type => SECTIONS[type] || { title: type, tabs: [ [ 'general', _('General') ], [ 'advanced', _('Advanced') ] ] },

	title: (type, option) => TITLES[type + '.' + option] || TITLES[option] || option
});
