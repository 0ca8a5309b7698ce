use super::*;

fn all(batch: &Batch, from: u32, to: u32) -> Vec<u8> {
    let (mut bytes, mut position) = (Vec::new(), from);
    while position < to {
        let slice = batch.slice(position, to);
        assert!(!slice.is_empty(), "no progress at {position} of {from}..{to}");
        bytes.extend_from_slice(slice);
        position += slice.len() as u32;
    }
    bytes
}

#[test]
fn slices_join_to_the_bytes_whatever_the_segments() {
    for shape in 0..32u8 {
        let mut batches = Batches::default();
        let key = batches.open();
        let (mut expected, mut ends) = (Vec::new(), Vec::new());
        for i in 0..5u8 {
            let head = vec![i; usize::from(i) + 1];
            let payload = (shape >> i & 1 == 1).then(|| Bytes::from(vec![100 + i; 7]));
            expected.extend_from_slice(&head);
            expected.extend_from_slice(payload.as_deref().unwrap_or_default());
            ends.push(expected.len() as u32);
            batches.append(key, payload, |bytes| bytes.extend_from_slice(&head));
        }
        let batch = batches.get(key);
        assert_eq!((batch.len() as usize, batches.held(), batch.messages()), (expected.len(), expected.len(), 5));
        for from in 0..=batch.len() {
            let cut = ends.iter().copied().find(|&end| end >= from).filter(|&end| end != from && from != 0);
            let border = from == 0 || ends.contains(&from);
            assert_eq!(batch.end_of_cut_message(from), if border { None } else { cut });
            for to in from..=batch.len() {
                assert_eq!(all(batch, from, to), expected[from as usize..to as usize], "{shape:b} {from}..{to}");
            }
        }
        batches.release(key);
        assert_eq!((batches.held(), batches.count()), (0, 0));
    }
}

#[test]
fn the_last_reference_frees() {
    let mut batches = Batches::default();
    let key = batches.open();
    batches.append(key, None, |bytes| bytes.push(1));
    batches.hold(key);
    assert!(!batches.is_sole(key));
    batches.release(key);
    assert_eq!((batches.held(), batches.count(), batches.is_sole(key)), (1, 1, true));
    batches.release(key);
    assert_eq!((batches.held(), batches.count()), (0, 0));
}
