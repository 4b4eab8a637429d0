//! What layers and datasets consist of: bytes that follow from name and version, so that whoever receives them knows
//! what they must be.

use sha2::{Digest, Sha256};

/// The contents of one version of a thing.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    seed: u64,
    pub bytes: u64,
}

/// Step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose outputs the contents are.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
const WORD: u64 = 8;

impl Content {
    pub fn of(name: &str, version: u32, bytes: u64) -> Content {
        let hash = Sha256::digest(format!("{name}@{version}"));
        let seed = hash.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte));
        Content { seed, bytes }
    }

    /// Writes the bytes from `offset` on.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        let (mut word, skip) = (offset / WORD, (offset % WORD) as usize);
        let head = (WORD as usize - skip).min(buffer.len());
        let (first, rest) = buffer.split_at_mut(if skip == 0 { 0 } else { head });
        if !first.is_empty() {
            let length = first.len();
            first.copy_from_slice(&self.word(word)[skip..skip + length]);
            word += 1;
        }
        for chunk in rest.chunks_mut(WORD as usize) {
            chunk.copy_from_slice(&self.word(word)[..chunk.len()]);
            word += 1;
        }
    }

    fn word(&self, index: u64) -> [u8; 8] {
        let mut z = self.seed.wrapping_add((index + 1).wrapping_mul(GAMMA));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Whether these are the bytes from `offset` on.
    pub fn is(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        offset + bytes.len() as u64 <= self.bytes && expected == bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        let content = Content::of("layer", 3, 100);
        let mut whole = vec![0; 100];
        content.fill(0, &mut whole);
        for offset in 0..100 {
            for length in 0..=100 - offset {
                assert!(content.is(offset as u64, &whole[offset..offset + length]), "{offset} {length}");
            }
        }
        assert!(!content.is(1, &whole), "more than there is");
        whole[57] ^= 1;
        assert!(!content.is(0, &whole));
        let other = Content::of("layer", 4, 100);
        assert!(!other.is(0, &whole[..50]), "versions differ");
    }
}
