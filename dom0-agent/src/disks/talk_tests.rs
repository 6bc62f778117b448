//! Offers, answers and turns come back as they were said, and nothing else is taken for one.

use super::*;
use proptest::prelude::*;

fn offers() -> Vec<Offer> {
    vec![
        Offer {
            disk: 51712,
            read_only: false,
            bytes: 1 << 30,
            data: 12345,
        },
        Offer {
            disk: 51728,
            read_only: true,
            bytes: 512,
            data: 0,
        },
    ]
}

#[test]
fn what_was_said_is_heard() {
    let bytes = encode_offers(&offers());
    assert_eq!(read_offers(&mut &bytes[..]).unwrap(), offers());
    let wishes = vec![(51712, Wish::Send), (51728, Wish::Have)];
    let bytes = encode_wishes(&wishes);
    assert_eq!(read_answer(&mut &bytes[..], &offers()).unwrap(), Ok(wishes));
    let bytes = encode_refusal("/srv/a.img: is there");
    let heard = read_answer(&mut &bytes[..], &offers()).unwrap();
    assert_eq!(heard, Err("/srv/a.img: is there".to_owned()));
    for turn in [Turn::Round(7), Turn::Last(51712), Turn::Over] {
        assert_eq!(Turn::read(&mut &turn.encode()[..]).unwrap(), turn);
    }
    // Characters are not torn.
    let bytes = encode_refusal(&"ä".repeat(MAX_REASON_BYTES));
    let text = read_answer(&mut &bytes[..], &[]).unwrap().unwrap_err();
    assert!(text.chars().all(|letter| letter == 'ä'), "{text}");
}

#[test]
fn nonsense_is_refused() {
    let text = |bytes: &[u8]| read_offers(&mut &bytes[..]).unwrap_err().to_string();
    let mut twice = offers();
    twice[1].disk = twice[0].disk;
    assert!(text(&encode_offers(&twice)).contains("offered twice"));
    let mut odd = offers();
    odd[0].bytes = 100;
    assert!(text(&encode_offers(&odd)).contains("a disk of 100 bytes"));
    let mut many = offers();
    many.resize(MAX_DISKS + 1, many[0]);
    assert!(text(&encode_offers(&many)).contains("at most"));
    assert!(text(b"LibxlFmt\0\0\0\x02\0\0\0\0").contains("not a disk section"));
    // An answer about other disks than were offered, or fewer.
    for wishes in [vec![(1, Wish::Send), (51728, Wish::Send)], vec![]] {
        let bytes = encode_wishes(&wishes);
        assert!(read_answer(&mut &bytes[..], &offers()).is_err());
    }
}

proptest! {
    #[test]
    fn a_bit_that_flips_is_found_out(at in 0_usize..48, bit in 0_u8..8) {
        let mut bytes = encode_offers(&offers()[..1]);
        let len = bytes.len();
        bytes[at % len] ^= 1 << bit;
        prop_assert!(read_offers(&mut &bytes[..]).is_err());
        let mut bytes = Turn::Round(51712).encode();
        bytes[at % TURN_BYTES] ^= 1 << bit;
        prop_assert!(Turn::read(&mut &bytes[..]).is_err());
    }
}
