//! A conversation through the gateway: its packets in both directions, errors about them, fragments.

use loxi_conformance::build;
use loxi_tests::oracle::{Frame, Known, Step};
use loxi_tests::random::Random;
use loxi_tests::wire::{self, ETH, set_word, word};
use std::net::IpAddr;

/// The stations on the gateway's links; host 1 is the gateway itself.
pub struct Station;

impl Station {
    /// The address of a host.
    pub fn address(link: usize, host: usize, v6: bool) -> String {
        match (v6, link) {
            (false, _) => format!("10.2.{link}.{host}"),
            (true, 0) => format!("fd00:2::{host}"),
            (true, _) => format!("fd00:2:0:{link}::{host}"),
        }
    }

    /// The MAC of a host.
    pub fn mac(link: usize, host: usize) -> String {
        format!("02:00:00:{link:02x}:0b:{host:02x}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Udp,
    Tcp,
    Echo,
    /// A protocol that is tracked by its addresses alone.
    Other,
}

/// What a connection has come to, for TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Opening,
    Answered,
    Established,
    /// One side has sent FIN: the client, if true.
    Closing(bool),
    Closed,
}

/// What the last step was, to be remembered when both sides agree on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Forward,
    Reply,
    /// Something that changes nothing.
    Aside,
}

/// A conversation.
pub struct Conversation {
    kind: Kind,
    v6: bool,
    link: usize,
    mac: String,
    src: String,
    dst: String,
    sport: u16,
    dport: u16,
    /// The client's last packet as the server saw it.
    far: Option<Frame>,
    /// The server's last packet as the client saw it.
    near: Option<Frame>,
    phase: Phase,
    then: Phase,
    last: Last,
    over: bool,
}

impl Conversation {
    pub fn new(random: &mut Random, sport: u16) -> Self {
        let (v6, link, host) = (random.chance(40), random.below(3), 2 + random.below(2));
        let kind = *random.pick(&[Kind::Udp, Kind::Tcp, Kind::Tcp, Kind::Tcp, Kind::Echo, Kind::Other]);
        let service = if v6 { ["fd00:96::1", "fd00:96::2"] } else { ["10.96.0.1", "10.96.0.2"] };
        let (dst, dport) = match random.below(6) {
            0 | 1 => (service[0].to_owned(), 80),
            2 => (service[1].to_owned(), 7000),
            3 => (service[0].to_owned(), 81),
            _ => (Station::address((link + 1 + random.below(2)) % 3, 2 + random.below(2), v6), 9000),
        };
        Self {
            kind,
            v6,
            link,
            mac: Station::mac(link, host),
            src: Station::address(link, host, v6),
            dst,
            sport,
            dport,
            far: None,
            near: None,
            phase: Phase::Opening,
            then: Phase::Opening,
            last: Last::Forward,
            over: false,
        }
    }

    /// The same from another station that is translated alike; for what goes out.
    pub fn twin(&self) -> Option<Self> {
        let outside =
            self.dst == Station::address(2, 2, self.v6) || self.dst == Station::address(2, 3, self.v6);
        let (link, host) = match self.link {
            0 => (1, 2),
            1 => (0, 3),
            _ => return None,
        };
        outside.then(|| Self {
            link,
            mac: Station::mac(link, host),
            src: Station::address(link, host, self.v6),
            dst: self.dst.clone(),
            far: None,
            near: None,
            phase: Phase::Opening,
            then: Phase::Opening,
            last: Last::Forward,
            over: false,
            ..*self
        })
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn end(&mut self) {
        self.over = true;
    }

    /// Both sides agreed on what came of the step.
    pub fn heard(&mut self, outputs: &[Frame]) {
        self.phase = self.then;
        let [output] = outputs else { return };
        let about = wire::is_icmp_error(&output.bytes);
        match self.last {
            // Answered by the gateway: there is nobody to go on with.
            Last::Forward if about || output.port == self.link && self.is_from_gateway(output) => {
                self.over = true
            }
            Last::Forward => self.far = Some(output.clone()),
            Last::Reply if !about => self.near = Some(output.clone()),
            _ => {}
        }
    }

    fn is_from_gateway(&self, output: &Frame) -> bool {
        let client: Option<IpAddr> = self.src.parse().ok();
        wire::addresses(&output.bytes).map(|(_, dst)| dst) == client
    }

    pub fn step(&mut self, random: &mut Random) -> Step {
        self.then = self.phase;
        self.last = Last::Aside;
        let Some(far) = self.far.clone() else { return self.forward(random, true) };
        match random.below(20) {
            0 => self.error_about(random, &far),
            1 if self.near.is_some() => {
                let near = self.near.clone().unwrap();
                self.error_about(random, &near)
            }
            2 if self.kind == Kind::Udp => self.fragments(random),
            3 => self.expiring(random),
            4 if self.kind == Kind::Tcp => self.odd(random),
            5 => self.large(random),
            roll if self.kind == Kind::Tcp => self.tcp(random, &far, roll % 2 == 0),
            roll if roll % 2 == 0 => self.forward(random, false),
            _ => self.reply(random, &far),
        }
    }

    fn one(&self, what: &str, port: usize, text: &str) -> Step {
        let bytes = build(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let what = format!("{what} ({:?} {:?}): {text}", self.kind, self.phase);
        Step { what, frames: vec![Frame { port, bytes }], may: None }
    }

    /// A packet of the client.
    fn client_text(&self, options: &str, l4: &str) -> String {
        let ip = if self.v6 { "ipv6" } else { "ipv4" };
        let (mac, link) = (&self.mac, self.link);
        format!("eth {mac}>02:00:00:00:0a:{link:02x} / {ip} {}>{} {options} / {l4}", self.src, self.dst)
    }

    fn transport(&self, random: &mut Random, ports: (u16, u16), request: bool) -> String {
        let (sport, dport) = ports;
        let fill = random.below(200);
        match self.kind {
            Kind::Udp if !self.v6 && random.chance(15) => format!("udp {sport}>{dport} csum=0 / fill {fill}"),
            Kind::Udp => format!("udp {sport}>{dport} / fill {fill}"),
            Kind::Tcp => format!("tcp {sport}>{dport} A seq=1001 ack=5001 / fill {fill}"),
            Kind::Echo => {
                let (name, kind) = match (self.v6, request) {
                    (false, true) => ("icmp", 8),
                    (false, false) => ("icmp", 0),
                    (true, true) => ("icmp6", 128),
                    (true, false) => ("icmp6", 129),
                };
                let id = if request { sport } else { dport };
                format!("{name} {kind} 0 id={id} seq={} / fill {fill}", random.below(100))
            }
            Kind::Other => format!("fill {}", fill + 4),
        }
    }

    fn forward(&mut self, random: &mut Random, opens: bool) -> Step {
        self.last = Last::Forward;
        let l4 = if opens && self.kind == Kind::Tcp {
            format!("tcp {}>{} S seq=1000", self.sport, self.dport)
        } else {
            self.transport(random, (self.sport, self.dport), true)
        };
        let text = self.client_text("", &l4);
        self.one("forward", self.link, &text)
    }

    /// A packet of the server that answers what it got.
    fn server_text(far: &Frame, l4: &str) -> String {
        let (src, dst) = wire::addresses(&far.bytes).expect("an IP packet");
        let mac = |at: usize| {
            let octets = far.bytes[at..at + 6].iter().map(|byte| format!("{byte:02x}"));
            octets.collect::<Vec<_>>().join(":")
        };
        let ip = if src.is_ipv4() { "ipv4" } else { "ipv6" };
        format!("eth {}>{} / {ip} {dst}>{src} / {l4}", mac(0), mac(6))
    }

    fn ports(far: &Frame) -> (u16, u16) {
        let sport = wire::source_port(&far.bytes).unwrap_or(0);
        (wire::destination_port(&far.bytes).unwrap_or(sport), sport)
    }

    fn reply(&mut self, random: &mut Random, far: &Frame) -> Step {
        self.last = Last::Reply;
        let l4 = self.transport(random, Self::ports(far), false);
        self.one("reply", far.port, &Self::server_text(far, &l4))
    }

    /// The next packet of a TCP connection that keeps to its protocol.
    fn tcp(&mut self, random: &mut Random, far: &Frame, by_client: bool) -> Step {
        use Phase::{Answered, Closed, Closing, Established, Opening};
        // Who sends, with which flags, and what it leads to.
        let (by_client, flags, then) = match (self.phase, by_client, random.below(8)) {
            (Opening, true, _) => (true, "S seq=1000", Opening),
            (Opening, false, 0) => (false, "RA seq=0 ack=1001", Closed),
            (Opening, false, _) => (false, "SA seq=5000 ack=1001", Answered),
            (Answered, true, _) => (true, "A seq=1001 ack=5001", Established),
            (Answered, false, _) => (false, "SA seq=5000 ack=1001", Answered),
            (Established, true, 0) => (true, "FA seq=1001 ack=5001", Closing(true)),
            (Established, false, 0) => (false, "FA seq=5001 ack=1001", Closing(false)),
            (Established, true, 1) => (true, "R seq=1001", Closed),
            (Established, false, 1) => (false, "RA seq=5001 ack=1001", Closed),
            (Established, true, _) => (true, "A seq=1001 ack=5001", Established),
            (Established, false, _) => (false, "PA seq=5001 ack=1001", Established),
            (Closing(true), _, 0..=3) => (false, "A seq=5001 ack=1002", Closing(true)),
            (Closing(true), _, _) => (false, "FA seq=5001 ack=1002", Closed),
            (Closing(false), _, 0..=3) => (true, "A seq=1001 ack=5002", Closing(false)),
            (Closing(false), _, _) => (true, "FA seq=1001 ack=5002", Closed),
            (Closed, _, 0..=3) => (true, "A seq=1002 ack=5002", Closed),
            (Closed, _, _) => {
                self.over = true;
                (false, "A seq=5002 ack=1002", Closed)
            }
        };
        self.then = then;
        let mut step = if by_client {
            self.last = Last::Forward;
            let text = self.client_text("", &format!("tcp {}>{} {flags}", self.sport, self.dport));
            self.one("tcp", self.link, &text)
        } else {
            self.last = Last::Reply;
            let (sport, dport) = Self::ports(far);
            self.one("tcp", far.port, &Self::server_text(far, &format!("tcp {sport}>{dport} {flags}")))
        };
        // Linux forgets a connection that was refused at once.
        step.may = (self.phase == Closed).then_some(Known::TcpStateStrict);
        step
    }

    /// Flags that don't fit; nothing is expected of the connection afterwards.
    fn odd(&mut self, random: &mut Random) -> Step {
        self.over = true;
        let flags = *random.pick(&["S", "SA", "F", "FA", "A", "-", "SF", "SR", "FP", "FPA", "R"]);
        let text =
            self.client_text("", &format!("tcp {}>{} {flags} seq=1001 ack=5001", self.sport, self.dport));
        let mut step = self.one("odd", self.link, &text);
        step.may = Some(Known::TcpStateStrict);
        step
    }

    /// A packet at its last hop.
    fn expiring(&mut self, random: &mut Random) -> Step {
        if self.kind == Kind::Tcp && self.phase != Phase::Established {
            let far = self.far.clone().unwrap();
            return self.tcp(random, &far, true);
        }
        let l4 = self.transport(random, (self.sport, self.dport), true);
        let text = self.client_text(if self.v6 { "hop=1" } else { "ttl=1" }, &l4);
        self.one("expiring", self.link, &text)
    }

    /// A packet that may be too large for the way out.
    fn large(&mut self, random: &mut Random) -> Step {
        if self.kind != Kind::Udp {
            let far = self.far.clone().unwrap();
            return if self.kind == Kind::Tcp {
                self.tcp(random, &far, false)
            } else {
                self.reply(random, &far)
            };
        }
        let l4 = format!("udp {}>{} / fill {}", self.sport, self.dport, 1330 + random.below(120));
        let text = self.client_text(if self.v6 { "" } else { "df id=5" }, &l4);
        self.one("large", self.link, &text)
    }

    /// An error about a packet that came out, by its receiver or by a router before it.
    fn error_about(&mut self, random: &mut Random, packet: &Frame) -> Step {
        let bytes = &packet.bytes;
        let (src, dst) = wire::addresses(bytes).expect("an IP packet");
        let by_receiver = random.chance(50);
        let from = if by_receiver { dst.to_string() } else { Station::address(packet.port, 9, self.v6) };
        let header = if self.v6 { 40 } else { 20 };
        let most = (bytes.len() - ETH).min(if self.v6 { 1200 } else { 520 });
        let quoted = if random.chance(50) { most } else { (header + 8).min(most) };
        let (name, kind, code, mtu) = match (self.v6, random.below(4)) {
            (false, 0) => ("icmp", 3, 1, 0),
            (false, 1) => ("icmp", 3, 3, 0),
            (false, 2) => ("icmp", 3, 4, 1300),
            (false, _) => ("icmp", 11, 0, 0),
            (true, 0) => ("icmp6", 1, 0, 0),
            (true, 1) => ("icmp6", 1, 4, 0),
            (true, 2) => ("icmp6", 2, 0, 1300),
            (true, _) => ("icmp6", 3, 0, 0),
        };
        let ip = if self.v6 { "ipv6" } else { "ipv4" };
        let host = bytes[5];
        let text = format!(
            "eth 02:00:00:{link:02x}:0b:{host:02x}>02:00:00:00:0a:{link:02x} / {ip} {from}>{src} / {name} {kind} {code} \
             word={mtu} / hex {}",
            wire::hex(&bytes[ETH..ETH + quoted]),
            link = packet.port,
        );
        let what = if by_receiver { "error by its receiver" } else { "error by a router" };
        let mut step = self.one(what, packet.port, &text);
        step.may = (self.phase == Phase::Closed).then_some(Known::TcpStateStrict);
        step
    }

    /// A datagram of the client in fragments, in order.
    fn fragments(&mut self, random: &mut Random) -> Step {
        let text = self.client_text(
            if self.v6 { "" } else { "id=4242" },
            &format!("udp {}>{} / fill 3000", self.sport, self.dport),
        );
        let whole = build(&text).unwrap();
        let id = 1 + random.below(60_000) as u16;
        let frames = if self.v6 { cut_v6(&whole, id) } else { cut_v4(&whole, id) };
        let frames = frames.into_iter().map(|bytes| Frame { port: self.link, bytes }).collect();
        Step { what: format!("fragments of {text}"), frames, may: None }
    }
}

/// Payload of a fragment; small enough for every link with any header.
const PIECE: usize = 1200;

fn cut_v4(whole: &[u8], id: u16) -> Vec<Vec<u8>> {
    let payload = &whole[ETH + 20..];
    let count = payload.len().div_ceil(PIECE);
    let piece = |(index, part): (usize, &[u8])| {
        let mut frame = whole[..ETH + 20].to_vec();
        frame.extend_from_slice(part);
        set_word(&mut frame, ETH + 2, (20 + part.len()) as u16);
        set_word(&mut frame, ETH + 4, id);
        let more = if index + 1 < count { 0x2000 } else { 0 };
        set_word(&mut frame, ETH + 6, more | (index * PIECE / 8) as u16);
        wire::fix_header(&mut frame);
        frame
    };
    payload.chunks(PIECE).enumerate().map(piece).collect()
}

fn cut_v6(whole: &[u8], id: u16) -> Vec<Vec<u8>> {
    let payload = &whole[ETH + 40..];
    let count = payload.len().div_ceil(PIECE);
    let piece = |(index, part): (usize, &[u8])| {
        let mut frame = whole[..ETH + 40].to_vec();
        set_word(&mut frame, ETH + 4, (8 + part.len()) as u16);
        let next = frame[ETH + 6];
        frame[ETH + 6] = 44;
        let more = u16::from(index + 1 < count);
        frame.extend_from_slice(&[next, 0]);
        frame.extend_from_slice(&((index * PIECE) as u16 | more).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(part);
        frame
    };
    debug_assert_eq!(word(whole, 12), 0x86dd);
    payload.chunks(PIECE).enumerate().map(piece).collect()
}
