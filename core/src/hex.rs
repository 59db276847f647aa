//! Bytes as hexadecimal digits, in one piece: object ids and hashes are on the way of every lock several times.

/// The digits, written into `buffer`, which takes two for each byte.
pub(crate) fn digits<'a>(bytes: &[u8], buffer: &'a mut [u8]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in buffer.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    let length = buffer.len().min(2 * bytes.len());
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// The digits as a text of their own.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut buffer = vec![0; 2 * bytes.len()];
    digits(bytes, &mut buffer).to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_has_two_digits() {
        let all: Vec<u8> = (0..=255).collect();
        let expected: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(super::text(&all), expected);
        assert_eq!(super::text(&[]), "");
    }
}
