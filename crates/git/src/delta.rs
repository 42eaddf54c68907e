//! Objects that are stored as the difference to another one.

/// Makes the object of its base; `most` bytes of it at most.
///
/// A difference is the size of both as numbers of seven bits a byte, the lowest first; then instructions: one bit, and four and
/// three bits for the bytes that follow of a place in the base and a length; or a length up to 127, and that many bytes.
pub(crate) fn apply(base: &[u8], delta: &[u8], most: u64) -> Result<Vec<u8>, &'static str> {
    let mut rest = delta;
    if number(&mut rest)? != base.len() as u64 {
        return Err("a difference is to an object of another size");
    }
    let size = number(&mut rest)?;
    if size > most {
        return Err("an object that is stored as a difference is too large");
    }
    let mut out = Vec::new();
    while let Some(code) = byte(&mut rest) {
        let piece = match code {
            0 => return Err("a difference has an instruction that there is not"),
            1..=0x7f => {
                let (piece, after) = rest
                    .split_at_checked(usize::from(code))
                    .ok_or("a difference breaks off")?;
                rest = after;
                piece
            }
            0x80.. => {
                let at = bits(&mut rest, code, 4)?;
                let length = match bits(&mut rest, code >> 4, 3)? {
                    0 => 0x10000,
                    length => length,
                };
                base.get(at..at + length)
                    .ok_or("a difference takes more than its base has")?
            }
        };
        if (out.len() + piece.len()) as u64 > size {
            return Err("a difference makes more than it says");
        }
        out.extend_from_slice(piece);
    }
    if out.len() as u64 != size {
        return Err("a difference makes less than it says");
    }
    Ok(out)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = byte(rest).ok_or("a difference breaks off")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a difference has a number that is too large")
}

/// A number whose bytes are there where the bits of a code are set.
fn bits(rest: &mut &[u8], code: u8, count: u32) -> Result<usize, &'static str> {
    let mut value = 0_usize;
    for bit in 0..count {
        if code & (1 << bit) != 0 {
            let byte = byte(rest).ok_or("a difference breaks off")?;
            value |= usize::from(byte) << (8 * bit);
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_applied() {
        // From place 2, three bytes; then two new ones.
        let delta = [6, 5, 0x91, 2, 3, 2, b'x', b'y'];
        assert_eq!(apply(b"abcdef", &delta, 5).unwrap(), b"cdexy");
    }

    #[test]
    fn wrong_differences_are_refused() {
        for delta in [
            &[][..],
            &[5, 0],
            &[6, 5],
            &[6, 1, 0],
            &[6, 4, 0x91, 3, 4],
            &[6, 2, 0x91, 0, 3],
            &[6, 9, 0x91, 0, 6],
            &[6, 3, 3, b'x'],
            &[6, 3, 0x91],
            &[0x80; 20],
            &[6, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert!(apply(b"abcdef", delta, 8).is_err(), "{delta:?}");
        }
    }
}
