//! CRC-32C as ext4 and EROFS have it: no inversion at the end, and one sum is the start of the next.

const TABLES: [[u32; 256]; 8] = tables();

#[allow(clippy::cast_possible_truncation, reason = "a byte's number")]
const fn tables() -> [[u32; 256]; 8] {
    let mut all = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut sum = i as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
            bit += 1;
        }
        all[0][i] = sum;
        i += 1;
    }
    let mut t = 1;
    while t < 8 {
        let mut i = 0;
        while i < 256 {
            let before: u32 = all[t - 1][i];
            all[t][i] = (before >> 8) ^ all[0][(before & 0xff) as usize];
            i += 1;
        }
        t += 1;
    }
    all
}

/// The sum of `bytes` after those that gave `start`; the first start is `!0`.
pub(super) fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = start;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(sum);
        sum =
            word.to_le_bytes().iter().rev().zip(&TABLES).fold(0, |s, (b, table)| s ^ table[usize::from(*b)]);
    }
    rest.iter().fold(sum, |sum, b| (sum >> 8) ^ TABLES[0][usize::from(sum.to_le_bytes()[0] ^ b)])
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn agrees_with_the_standard() {
        // RFC 3720, B.4, and the check value of every catalogue.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        let count: Vec<u8> = (0..32).collect();
        assert_eq!(!crc32c(!0, &count), 0x46dd_794e);
        assert_eq!(!crc32c(crc32c(!0, &count[..5]), &count[5..]), 0x46dd_794e);
    }
}
