//! The right to release and extend: a caller's own word, or the hash of a secret.

use sha2::{Digest, Sha256};

use crate::hex;

/// What a stored fingerprint starts with when it is the hash of a secret.
pub const HASHED: &str = "sha256:";

/// The longest fingerprint a caller may choose, in bytes.
pub const MAX_FINGERPRINT_BYTES: usize = 256;

/// The form in which a guard's secret is stored: readers of the record can't use it.
pub fn hash(secret: &str) -> String {
    let mut buffer = [0; 64];
    [HASHED, hex::digits(&Sha256::digest(secret.as_bytes()), &mut buffer)].concat()
}

/// Whether `proof` is what the stored fingerprint asks for.
pub fn proves(proof: &str, stored: &str) -> bool {
    if stored.starts_with(HASHED) { hash(proof) == stored } else { !stored.is_empty() && proof == stored }
}

#[cfg(test)]
mod tests {
    use super::{hash, proves};

    #[test]
    fn a_hash_proves_nothing_by_itself() {
        let stored = hash("secret");
        assert!(proves("secret", &stored));
        assert!(!proves(&stored, &stored), "reading the record must not be enough");
        assert!(!proves("other", &stored));
    }

    #[test]
    fn a_callers_word_is_compared_as_it_is() {
        assert!(proves("build-session-123", "build-session-123"));
        assert!(!proves("build-session", "build-session-123"));
        assert!(!proves("", ""), "a record without a fingerprint is nobody's to release");
    }
}
