//! What a start would set up, and what a stop would remove, without doing either: `bonding plan`.

use std::io;

use nix::net::if_::if_nametoindex;
use zeroize::Zeroizing;

use super::enslaving::{FIRST_LINK, clients_devices, servers_device};
use super::placing;
use super::starting::{FIRST_MTU, new_endpoint};
use crate::config::key::Secret;
use crate::config::value::Host;
use crate::config::{Config, Mode, Role, Script};
use crate::daemon::client::Client;
use crate::daemon::desired::{self, Tunnel};
use crate::daemon::kernel;
use crate::daemon::start::StartError;
use crate::io::Driver;
use crate::io::timer::{Timer, now};
use crate::net::state::{Change, diff};
use crate::net::{Desired, Netlink, Reconciler};

/// Stands for the index of a device that does not exist; real ones are counted from 1.
const NO_INDEX: u32 = u32::MAX;

/// Prints, line by line, what [`super::Daemon::start`] would do with this configuration now, as far as it is not done.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub async fn start(config: &Config) -> Result<Vec<String>, StartError> {
    let (mut lines, bond) = (Vec::new(), &config.bond);
    let present = if_nametoindex(bond.ifname.as_str()).ok();
    let tunnel = Tunnel { index: present.unwrap_or(NO_INDEX), mtu: bond.mtu.unwrap_or(FIRST_MTU) };
    lines.extend(script(&bond.hooks.preup));
    let in_kernel = config.globals.mode == Mode::Kernel;
    match present {
        None if in_kernel => {
            let (what, _) = kernel::describe(&bond.kernel);
            lines.push(format!("create bonding device {}: {what}", bond.ifname));
        }
        None => lines.push(format!("create TUN device {}", bond.ifname)),
        Some(_) => {}
    }

    let netlink = Netlink::open()?;
    let (mut at_once, mut answered) = (Desired::default(), Desired::default());
    match config.globals.role {
        Role::Server => {
            if in_kernel {
                lines.extend(slave(config, &servers_device(&bond.ifname, FIRST_LINK)));
                lines.push("create one more for each further link of the client".to_owned());
            }
            at_once = desired::server(config, tunnel);
        }
        Role::Client => {
            // Nobody is called, so that any key will do.
            let mut key = Zeroizing::new([0; 32]);
            getrandom::fill(key.as_mut_slice())
                .map_err(|error| StartError::system("random numbers")(io::Error::other(error.to_string())))?;
            let key = Secret::new(key);
            let timer = Timer::new().map_err(StartError::system("timer"))?;
            let mut driver = Driver::new(new_endpoint(config, &key, None, now())?, timer);
            if let Some(mut client) = Client::new(config, &mut driver, now()) {
                if in_kernel {
                    let devices = clients_devices(&client, &bond.ifname);
                    lines.extend(devices.flat_map(|wanted| slave(config, &wanted.device)));
                }
                placing::place_now(&mut client, &netlink, None, config.globals.route_protocol).await;
                client.set_up(false);
                at_once = client.desired(config, tunnel).0;
                client.set_up(true);
                let (desired, loose) = client.desired(config, tunnel);
                answered = desired;
                lines.extend(loose.iter().map(|device| {
                    format!(
                        "set net.ipv4.conf.{device}.rp_filter to 2, so that it takes what other links sent"
                    )
                }));
                lines.extend(sockets(config, &client));
            }
        }
    }

    let reconciler = Reconciler::new(netlink, desired::ownership(config));
    let actual = reconciler.actual().await?;
    let named = |change: &Change| {
        let words = change.to_string();
        let name = |word: &str| {
            let (word, comma) = word.strip_suffix(',').map_or((word, ""), |word| (word, ","));
            let index = word.strip_prefix('#').and_then(|number| number.parse::<u32>().ok());
            let link = index.and_then(|index| actual.links.iter().find(|link| link.index == index));
            match (index, link) {
                (Some(NO_INDEX), _) => format!("{}{comma}", bond.ifname),
                (_, Some(link)) => format!("{}{comma}", link.name),
                _ => format!("{word}{comma}"),
            }
        };
        words.split(' ').map(name).collect::<Vec<_>>().join(" ")
    };
    let then = diff(&actual, &answered, reconciler.ownership());
    let now = match config.globals.role {
        // It runs, and the server has answered.
        Role::Client if then.is_empty() => Vec::new(),
        _ => diff(&actual, &at_once, reconciler.ownership()),
    };
    lines.extend(now.iter().map(&named));
    lines.extend(script(&bond.hooks.up));
    if config.globals.role == Role::Client {
        let then: Vec<String> = then.iter().filter(|change| !now.contains(change)).map(&named).collect();
        if !then.is_empty() {
            lines.push("when the server answers:".to_owned());
            lines.extend(then.into_iter().map(|line| format!("  {line}")));
        }
    }
    Ok(lines)
}

/// Prints what a stop would remove.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub async fn stop(config: &Config) -> Result<Vec<String>, StartError> {
    let hooks = &config.bond.hooks;
    let reconciler = Reconciler::new(Netlink::open()?, desired::ownership(config));
    let actual = reconciler.actual().await?;
    let changes = diff(&actual, &Desired::default(), reconciler.ownership());
    let present = if_nametoindex(config.bond.ifname.as_str()).is_ok();
    if changes.is_empty() && !present {
        return Ok(vec!["nothing of the bond is set up".to_owned()]);
    }
    let mut lines: Vec<String> = script(&hooks.predown).collect();
    let owned = reconciler.list_owned().await?;
    lines.extend(owned.lines(&actual.links).into_iter().map(|line| format!("remove {line}")));
    if present && config.globals.mode == Mode::Kernel {
        lines.push(format!("remove bonding device {} and its slaves", config.bond.ifname));
    } else if present {
        lines.push(format!("remove TUN device {}", config.bond.ifname));
    }
    lines.extend(script(&hooks.down));
    Ok(lines)
}

/// Kernel mode's device of a link, if it is not there.
fn slave(config: &Config, device: &str) -> Option<String> {
    let (_, kind) = kernel::describe(&config.bond.kernel);
    let absent = if_nametoindex(device).is_err();
    absent.then(|| format!("create {kind} device {device}, a slave of {}", config.bond.ifname))
}

/// The links' sockets, or why they have none.
fn sockets(config: &Config, client: &Client) -> impl Iterator<Item = String> {
    let places = client.places();
    config.links.iter().map(move |link| {
        let name = &link.name;
        let (place, shown) = match (client.place(name), places.get(name)) {
            (Some(Ok(place)), Some(shown)) => (place, shown),
            (Some(Err(why)), _) => return format!("link {name}: not yet: {why}"),
            _ => return format!("link {name}: not used"),
        };
        let from = place.resolved.paths.iter().map(|path| path.address.to_string()).collect::<Vec<_>>();
        let device = place.resolved.device.as_deref().unwrap_or_default();
        let servers = link.servers.iter().map(Host::to_string).collect::<Vec<_>>().join(" or ");
        format!(
            "link {name}: send from {} by {device}, mark {}, table {}, to {servers} port {}",
            from.join(" or "),
            shown.mark,
            shown.table,
            link.remote_port
        )
    })
}

fn is_absent(script: &Script) -> bool {
    !script.path.exists()
}

fn script(script: &Script) -> impl Iterator<Item = String> + use<> {
    let line = (!is_absent(script)).then(|| format!("run {}", script.path.display()));
    line.into_iter()
}
