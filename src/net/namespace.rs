//! Network namespaces for tests: a place where a test may set what it likes, and that is gone with the test.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::{Address, Link, Netlink};
use crate::io::{Tun, TunKind, TunOptions};

/// The longest that a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A network namespace.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    fn current() -> Namespace {
        Namespace { file: File::open("/proc/thread-self/ns/net").unwrap() }
    }

    /// A further one, empty but for its loopback interface, which is down.
    pub(crate) fn another() -> Namespace {
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Namespace::current()
        })
        .join()
        .unwrap()
    }

    /// Does something in it: what is opened there stays there.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let home = Namespace::current();
        setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
        let result = work();
        setns(&home.file, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

/// The namespace of the running test.
pub(crate) struct Bench {
    pub(crate) netlink: Netlink,
    handle: rtnetlink::Handle,
}

/// Runs `test` on a thread of its own, in a namespace of its own with the loopback interface up. Without the privilege
/// to make one, says so and does nothing.
pub(crate) fn run<F, Fut>(test: F)
where
    F: FnOnce(Bench) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let (done, finished) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _done = done;
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: cannot make a network namespace ({error}); run the tests as root");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bench = Bench::new();
                bench.up("lo").await;
                tokio::time::timeout(LIMIT, test(bench)).await.expect("the test takes too long");
            });
        })
        .unwrap();
    // The sender is dropped when the thread ends, by a panic too.
    match finished.recv_timeout(LIMIT * 2) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs"),
        _ => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Bench {
    fn new() -> Bench {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        Bench { netlink: Netlink::open().unwrap(), handle }
    }

    /// The same in another namespace.
    pub(crate) fn in_namespace(namespace: &Namespace) -> Bench {
        namespace.enter(Bench::new)
    }

    pub(crate) async fn link(&self, name: &str) -> Link {
        self.netlink.link_by_name(name).await.unwrap()
    }

    pub(crate) async fn up(&self, name: &str) {
        let index = self.link(name).await.index;
        self.netlink.set_link_up(index, true).await.unwrap();
    }

    /// A network card, up, of which the test is the other end.
    pub(crate) async fn card(&self, name: &str) -> (Tun, u32) {
        let options = TunOptions { kind: TunKind::Tap, ..TunOptions::new(name, 1500) };
        let card = Tun::open(&options).unwrap();
        self.up(name).await;
        (card, self.link(name).await.index)
    }

    /// A cable between `here`, in this namespace, and `there`, in another one; both ends up.
    pub(crate) async fn cable(&self, here: &str, there: &str, other: &Namespace, other_bench: &Bench) {
        use std::os::fd::AsRawFd;
        self.handle.link().add(LinkVeth::new(here, there).build()).execute().await.unwrap();
        let move_it = LinkUnspec::new_with_name(there).setns_by_fd(other.file.as_raw_fd()).build();
        self.handle.link().set(move_it).execute().await.unwrap();
        self.up(here).await;
        other_bench.up(there).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        let index = self.link(name).await.index;
        self.handle.link().del(index).execute().await.unwrap();
    }

    /// Sets an address that is not ours.
    pub(crate) async fn address(&self, device: &str, address: &str, prefix_len: u8) -> Address {
        let index = self.link(device).await.index;
        let address: IpAddr = address.parse().unwrap();
        let address = Address { index, address, prefix_len, peer: None };
        self.netlink.add_address(&address, 0).await.unwrap();
        address
    }

    /// Makes a neighbour known, with the hardware address of [`hardware_address`], so that what is sent to it leaves at
    /// once.
    pub(crate) async fn neighbour(&self, index: u32, neighbour: &str) {
        let neighbour: IpAddr = neighbour.parse().unwrap();
        let hardware_address = hardware_address(neighbour);
        let request = self.handle.neighbours().add(index, neighbour).link_layer_address(&hardware_address);
        request.execute().await.unwrap();
    }
}

/// The hardware address that [`Bench::neighbour`] gives: locally administered, ends like the IP address.
pub(crate) fn hardware_address(neighbour: IpAddr) -> [u8; 6] {
    let last = match neighbour {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    [2, 0, 0, 0, 0, last]
}
