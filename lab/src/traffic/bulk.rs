//! What is sent in bulk, and the value that shows that it has arrived unchanged.

const CHUNK: usize = 16 << 10;

/// Bytes that look like noise and are the same each time.
#[derive(Debug)]
pub struct Pattern {
    left: u64,
    state: u64,
    chunk: Vec<u8>,
}

impl Pattern {
    /// This many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes, state: 0x9e37_79b9_7f4a_7c15, chunk: Vec::with_capacity(CHUNK) }
    }

    /// The next bytes, until there are no more.
    pub fn next_chunk(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        let size = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        self.chunk.clear();
        while self.chunk.len() < size {
            // xorshift64 (Marsaglia, Journal of Statistical Software 8/14).
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.chunk.extend_from_slice(&self.state.to_le_bytes());
        }
        self.chunk.truncate(size);
        self.left -= size as u64;
        Some(&self.chunk)
    }

    /// The check value of a whole pattern.
    #[must_use]
    pub fn crc(bytes: u64) -> u32 {
        let (mut pattern, mut crc) = (Self::new(bytes), Crc::default());
        while let Some(chunk) = pattern.next_chunk() {
            crc.add(chunk);
        }
        crc.value()
    }
}

/// CRC-32 (IEEE 802.3). TCP's own checksum would pass what a translation has spoilt consistently.
#[derive(Debug, Clone, Copy)]
pub struct Crc(u32);

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

impl Default for Crc {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc {
    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = TABLE[usize::from(self.0 as u8 ^ byte)] ^ (self.0 >> 8);
        }
    }

    /// The value of all bytes so far.
    #[must_use]
    pub fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_the_standards() {
        let mut crc = Crc::default();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn patterns_have_their_length_and_repeat() {
        for bytes in [0, 1, 7, 16_384, 100_001] {
            let mut pattern = Pattern::new(bytes);
            let mut total = 0;
            while let Some(chunk) = pattern.next_chunk() {
                total += chunk.len() as u64;
            }
            assert_eq!(total, bytes);
        }
        assert_eq!(Pattern::crc(1000), Pattern::crc(1000));
        assert_ne!(Pattern::crc(1000), Pattern::crc(1001));
    }
}
