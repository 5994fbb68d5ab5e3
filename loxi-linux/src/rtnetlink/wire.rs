//! The bytes of rtnetlink messages. Reading takes what it knows and skips the rest: a kernel may
//! always say more. Cut-off attributes end the reading; nothing panics.

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A request under construction.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of a type with its fixed part.
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags as u16 | libc::NLM_F_REQUEST as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        let mut request = Self { bytes };
        request.raw(fixed);
        request
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    pub(super) fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    pub(super) fn attr_str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// An attribute that starts with `fixed` and goes on with what `inner` adds.
    pub(super) fn nest(&mut self, kind: u16, fixed: &[u8], inner: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attr(kind, fixed);
        inner(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// The finished message.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = get_u32(bytes, 0)? as usize;
        if len < HEADER || len > bytes.len() {
            return None;
        }
        let message = Message {
            kind: get_u16(bytes, 4)?,
            flags: get_u16(bytes, 6)?,
            sequence: get_u32(bytes, 8)?,
            body: &bytes[HEADER..len],
        };
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, without the flag bits of their types.
pub(super) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(get_u16(bytes, 0)?);
        if len < 4 || len > bytes.len() {
            return None;
        }
        let attr = (get_u16(bytes, 2)? & 0x3fff, &bytes[4..len]);
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some(attr)
    })
}

pub(super) fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// A zero-terminated text.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn ip_bytes(addr: std::net::IpAddr) -> Vec<u8> {
    match addr {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn family(addr: std::net::IpAddr) -> u8 {
    if addr.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut request = Request::new(16, 0, &[1, 2, 3, 4]);
        request.attr_str(3, "eth0");
        request.nest(18, &[], |r| {
            r.attr(1, b"veth");
            r.nest(2, &[9; 4], |r| r.attr_u32(4, 1500));
        });
        let bytes = request.finish(7);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 16, 7));
        let read: Vec<_> = attrs(&all[0].body[4..]).collect();
        assert_eq!((read[0].0, text(read[0].1)), (3, "eth0".into()));
        let inner: Vec<_> = attrs(read[1].1).collect();
        assert_eq!(inner[0], (1, &b"veth"[..]));
        assert_eq!(attrs(&inner[1].1[4..]).next(), Some((4, &1500u32.to_ne_bytes()[..])));
    }

    #[test]
    fn cut_off_answers_end_quietly() {
        let mut request = Request::new(16, 0, &[0; 4]);
        request.attr_str(3, "eth0");
        let bytes = request.finish(1);
        for len in 0..bytes.len() {
            assert_eq!(messages(&bytes[..len]).count(), 0);
            let _ = attrs(&bytes[..len]).count();
        }
    }
}
