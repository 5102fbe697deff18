//! Asks name servers for the addresses of a name through one link: from its address, by its device, with its mark, as its
//! own datagrams are sent.
//!
//! Each question has a socket of its own, connected to the name server, so that an answer must come from there to a
//! port that the kernel has drawn, with an identifier that was drawn as well (RFC 5452, section 9).

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Family;
use super::dns::{Answer, MAX_MESSAGE, NoAnswer, PORT, Question};

/// How long a name server may take, in the first round and in the second.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_secs(3)];

/// Name servers that are asked, at most; as many as the C library.
const MAX_SERVERS: usize = 3;

/// How questions leave, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Only through this device (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Index of the link's device, for name servers with link-local addresses.
    pub index: u32,
    /// Mark of the packets (`SO_MARK`).
    pub mark: Option<u32>,
    /// Addresses to send from, one of each family that the link has. Addresses of these families are asked for.
    pub sources: Vec<IpAddr>,
    /// The name servers.
    pub servers: Vec<IpAddr>,
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// None that could be asked from the link's addresses.
    #[error("the link has no name server of its IP version")]
    NoServer,
    /// It is not a name as DNS has them.
    #[error("'{0}' is not a name that can be resolved")]
    Name(String),
    /// No answer in time.
    #[error("the name server {0} does not answer")]
    Silent(IpAddr),
    /// The question could not be sent, or was refused.
    #[error("asking the name server {server}: {source}")]
    Io {
        /// The name server.
        server: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There was an answer without addresses.
    #[error("{reason} (name server {server})")]
    Answer {
        /// The name server.
        server: IpAddr,
        /// What it says.
        reason: NoAnswer,
    },
    /// The name exists and has no address that the link could send to.
    #[error("the name has no address of the link's IP version")]
    NoAddress,
}

/// The addresses of a name, IPv6 first.
///
/// # Errors
///
/// What the last name server made of it.
pub async fn lookup(way: &Way, name: &str) -> Result<Answer, LookupError> {
    let mut last = LookupError::NoServer;
    for limit in PATIENCE {
        for server in way.servers.iter().take(MAX_SERVERS) {
            match ask(way, *server, name, limit).await {
                Ok(answer) => return Ok(answer),
                Err(
                    error @ (LookupError::Answer { reason: NoAnswer::NoSuchName, .. }
                    | LookupError::NoAddress
                    | LookupError::Name(_)),
                ) => return Err(error),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

impl Way {
    fn source(&self, family: Family) -> Option<IpAddr> {
        self.sources.iter().copied().find(|source| Family::of(*source) == family)
    }

    /// A socket from the link's address to the name server.
    fn socket(&self, server: IpAddr, source: IpAddr) -> io::Result<UdpSocket> {
        let remote = match server {
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                SocketAddrV6::new(address, PORT, 0, self.index).into()
            }
            address => SocketAddr::new(address, PORT),
        };
        let socket =
            Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&remote.into())?;
        UdpSocket::from_std(socket.into())
    }
}

/// Asks one name server for the addresses of all families that the link has.
async fn ask(way: &Way, server: IpAddr, name: &str, limit: Duration) -> Result<Answer, LookupError> {
    let Some(source) = way.source(Family::of(server)) else { return Err(LookupError::NoServer) };
    let of = |family| async move {
        // Without an address to send from there is nothing to find.
        if way.source(family).is_none() {
            return Ok(Answer::default());
        }
        let mut id = [0; 2];
        getrandom::fill(&mut id)
            .map_err(|error| LookupError::Io { server, source: io::Error::other(error.to_string()) })?;
        let Some(question) = Question::new(name, family, u16::from_ne_bytes(id)) else {
            return Err(LookupError::Name(name.to_owned()));
        };
        let exchange = async { exchange(&way.socket(server, source)?, &question).await };
        match timeout(limit, exchange).await {
            Err(_) => Err(LookupError::Silent(server)),
            Ok(Err(source)) => Err(LookupError::Io { server, source }),
            Ok(Ok(answer)) => answer.map_err(|reason| LookupError::Answer { server, reason }),
        }
    };
    match tokio::join!(of(Family::V6), of(Family::V4)) {
        (Ok(six), Ok(four)) => {
            let with_addresses = [&six, &four].into_iter().filter(|answer| !answer.addresses.is_empty());
            let Some(ttl) = with_addresses.map(|answer| answer.ttl).min() else {
                return Err(LookupError::NoAddress);
            };
            Ok(Answer { addresses: [six.addresses, four.addresses].concat(), ttl })
        }
        // Some name servers do not answer every type.
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) if !answer.addresses.is_empty() => Ok(answer),
        (_, Err(error)) | (Err(error), _) => Err(error),
    }
}

/// Sends the question and waits for its answer; what else comes is not heard.
async fn exchange(socket: &UdpSocket, question: &Question) -> io::Result<Result<Answer, NoAnswer>> {
    socket.send(&question.message()).await?;
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match question.answer(buffer.get(..length).unwrap_or_default()) {
            Err(NoAnswer::Unrelated) => {}
            answer => return Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::namespace::run;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn way(source: &[&str], servers: &[&str]) -> Way {
        let list = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect();
        Way { device: Some("lo".into()), sources: list(source), servers: list(servers), ..Way::default() }
    }

    /// Answers every question by what `answer` makes of it, its type and who asks.
    async fn serve(address: &str, answer: impl Fn(&[u8], u16, IpAddr) -> Vec<Vec<u8>>) {
        let socket = UdpSocket::bind((ip(address), PORT)).await.unwrap();
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let question = &buffer[..length];
            let kind = u16::from_be_bytes([question[length - 4], question[length - 3]]);
            for message in answer(question, kind, from.ip()) {
                socket.send_to(&message, from).await.unwrap();
            }
        }
    }

    fn response(question: &[u8], records: &[&[u8]]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        for data in records {
            message[7] += 1;
            let kind: u8 = if data.len() == 4 { 1 } else { 28 };
            message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
            message.extend(*data);
        }
        message
    }

    #[test]
    fn asks_from_the_links_address_and_hears_only_the_answer() {
        run(|_| async {
            let server = serve("127.0.0.1", |question, kind, from| {
                assert_eq!((kind, from), (1, ip("127.0.0.7")), "only what the link can use");
                let mut other = response(question, &[&[192, 0, 2, 66]]);
                other[0] ^= 1;
                vec![other, vec![], response(question, &[&[192, 0, 2, 1], &[192, 0, 2, 2]])]
            });
            let way = way(&["127.0.0.7"], &["::1", "127.0.0.1"]);
            let answer = tokio::select! {
                () = server => unreachable!("it serves for ever"),
                answer = lookup(&way, "vpn.example") => answer.unwrap(),
            };
            assert_eq!(answer.addresses, [ip("192.0.2.1"), ip("192.0.2.2")]);
            assert_eq!(answer.ttl, Duration::from_secs(60));
        });
    }

    #[test]
    fn goes_on_to_the_next_name_server() {
        run(|_| async {
            let silent = serve("127.0.0.1", |_, _, _| vec![]);
            let failing = serve("127.0.0.2", |question, _, _| {
                let mut message = response(question, &[]);
                message[3] |= 2;
                vec![message]
            });
            let knowing = serve("127.0.0.3", |question, _, _| vec![response(question, &[&[192, 0, 2, 1]])]);
            let way = |servers: &[&str]| way(&["127.0.0.7"], servers);
            let all = way(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
            let (refusing, no_answer) = (way(&["127.0.0.9"]), way(&["127.0.0.2"]));
            let questions = async {
                assert_eq!(lookup(&all, "vpn.example").await.unwrap().addresses, [ip("192.0.2.1")]);
                assert!(matches!(lookup(&refusing, "x.example").await, Err(LookupError::Io { .. })));
                let failed = lookup(&no_answer, "x.example").await.unwrap_err().to_string();
                assert_eq!(failed, "the name server answered with error 2 (name server 127.0.0.2)");
                assert!(matches!(lookup(&way(&["::1"]), "x.example").await, Err(LookupError::NoServer)));
                assert!(matches!(lookup(&all, "x..example").await, Err(LookupError::Name(_))));
            };
            tokio::select! {
                _ = async { tokio::join!(silent, failing, knowing) } => unreachable!("they serve for ever"),
                () = questions => {}
            }
        });
    }

    #[test]
    fn both_families_and_one_that_is_not_answered() {
        run(|_| async {
            let six = ip("2001:db8::1");
            let IpAddr::V6(bytes) = six else { unreachable!() };
            let both = serve("127.0.0.1", move |question, kind, _| match kind {
                28 => vec![response(question, &[&bytes.octets()])],
                _ => vec![response(question, &[&[192, 0, 2, 1]])],
            });
            let one = serve("127.0.0.2", |question, kind, _| match kind {
                28 => vec![],
                _ => vec![response(question, &[&[192, 0, 2, 1]])],
            });
            let questions = async {
                let ask = |server| {
                    let way = way(&["::1", "127.0.0.1"], &[server]);
                    async move { lookup(&way, "vpn.example").await.unwrap().addresses }
                };
                assert_eq!(ask("127.0.0.1").await, [six, ip("192.0.2.1")]);
                assert_eq!(ask("127.0.0.2").await, [ip("192.0.2.1")]);
            };
            tokio::select! {
                _ = async { tokio::join!(both, one) } => unreachable!("they serve for ever"),
                () = questions => {}
            }
        });
    }
}
