//! Packets as text, for rows.
//!
//! Layers from the outside in, separated by ` / `. Lengths, protocol numbers
//! and checksums are filled in; naming a field sets it to a wrong value on
//! purpose. It shares no code with the reference, so that a mistake in one
//! does not hide in the other.
//!
//! | layer | fields |
//! | --- | --- |
//! | `eth SRC>DST` | `type=` |
//! | `vlan VID` | `pcp=` |
//! | `arp request\|reply MAC/IP>MAC/IP` | |
//! | `ipv4 SRC>DST` | `ttl= tos= id= df mf off= proto= len= ihl= csum= ver=` |
//! | `ipv6 SRC>DST` | `hop= tc= nh= len= ver=` |
//! | `hbh`, `dst` | `nh=` |
//! | `frag id=` | `off= mf nh=` |
//! | `tcp SPORT>DPORT FLAGS` | `seq= ack= win= doff= csum=` |
//! | `udp SPORT>DPORT` | `len= csum=` |
//! | `sctp SPORT>DPORT chunk=` | `vtag= csum=` |
//! | `icmp TYPE CODE`, `icmp6 TYPE CODE` | `id= seq= word= csum=` |
//! | `vxlan VNI` | `flags=` |
//! | `data TEXT`, `fill N`, `hex BYTES`, `pad N` | |

mod layers;
mod tokens;

use tokens::Tokens;

/// Why a text is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer {layer} (`{text}`): {message}")]
pub struct PacketError {
    /// Which layer, from 1.
    pub layer: usize,
    /// Its text.
    pub text: String,
    /// What is wrong.
    pub message: String,
}

/// Builds the bytes of a packet.
///
/// # Errors
/// [`PacketError`] naming the layer.
pub fn build(text: &str) -> Result<Vec<u8>, PacketError> {
    let parts: Vec<&str> = text.split(" / ").map(str::trim).collect();
    let mut layers = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let error = |message: String| PacketError { layer: index + 1, text: (*part).to_owned(), message };
        let tokens = Tokens::new(part);
        layers.push(layers::parse(tokens).map_err(error)?);
    }
    Ok(layers::emit(&layers, layers::Around::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_packet_has_known_bytes() {
        // An echo request as Linux sends it; checksums worked out by tshark.
        let text = "eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1>10.0.0.2 ttl=64 df / icmp 8 0 id=1 seq=1";
        let bytes = build(text).unwrap();
        assert_eq!(bytes.len(), 14 + 20 + 8);
        assert_eq!(bytes[24..26], [0x26, 0xdf]);
        assert_eq!(bytes[36..38], [0xf7, 0xfd]);
    }

    #[test]
    fn errors_name_the_layer() {
        let error = build("eth 02:00:00:00:00:01>02:00:00:00:00:02 / ipv4 10.0.0.1").unwrap_err();
        assert_eq!(error.layer, 2);
        assert!(build("eth 02:00:00:00:00:01>02:00:00:00:00:02 / nonsense").is_err());
        assert!(build("eth 02:00:00:00:00:01>02:00:00:00:00:02 ttl=1").is_err());
    }
}
