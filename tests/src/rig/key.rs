//! Cache keys: one short name for everything that went into a thing.

/// Collects inputs and gives their 64-bit FNV-1a hash as hexadecimal digits. Not for anything an attacker chooses.
#[derive(Debug, Clone)]
pub struct Key(u64);

impl Default for Key {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Key {
    /// Adds one input; `("ab", "c")` and `("a", "bc")` differ.
    #[must_use]
    pub fn with(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        for &byte in input.iter().chain(&(input.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Sixteen hexadecimal digits.
    #[must_use]
    pub fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn the_cut_between_two_inputs_matters() {
        assert_ne!(
            Key::default().with("ab").with("c").digits(),
            Key::default().with("a").with("bc").digits()
        );
    }
}
