use super::*;

fn source() -> Source {
    Source { channel: Arc::from("/chat"), epoch: [0; 16], offset: 0 }
}

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
            batches.append(key, payload.as_slice(), |bytes| bytes.extend_from_slice(&head));
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
fn spares_are_few_and_small() {
    let mut batches = Batches::default();
    for size in [1, 100, 1000, SPARE_CAPACITY - 1000, SPARE_CAPACITY + 1] {
        for _ in 0..2 {
            let keys: Vec<BatchKey> = (0..SPARE + 9).map(|_| batches.open_for(source())).collect();
            keys.iter().for_each(|&key| batches.append(key, &[], |bytes| bytes.resize(size, 7)));
            keys.iter().for_each(|&key| batches.release(key));
            assert!(batches.spare.len() <= SPARE && batches.spare_bytes <= SPARE_BYTES, "{size}");
            assert!(
                batches
                    .spare
                    .iter()
                    .map(|&key| &batches.slab[key as usize])
                    .all(|spare| spare.is_empty() && spare.capacity() <= SPARE_CAPACITY)
            );
            assert_eq!(
                batches.spare_bytes,
                batches.spare.iter().map(|&key| batches.slab[key as usize].capacity()).sum::<usize>(),
                "{size}"
            );
        }
    }
}

#[test]
fn spares_stay_while_they_are_needed() {
    let mut batches = Batches::default();
    let mut turn = |count: usize| {
        let keys: Vec<BatchKey> = (0..count).map(|_| batches.open_for(source())).collect();
        keys.iter().for_each(|&key| batches.append(key, &[], |bytes| bytes.push(7)));
        keys.iter().for_each(|&key| batches.release(key));
        batches.shed();
        assert_eq!(
            batches.spare_bytes,
            batches.spare.iter().map(|&key| batches.slab[key as usize].capacity()).sum::<usize>()
        );
        (batches.spare.len(), batches.spare.capacity())
    };
    for _ in 0..50 {
        assert_eq!(turn(500).0, 500);
    }
    let (left, room) = (0..50).fold((0, 0), |_, _| turn(1));
    assert!(left == FEW + 1 && room < 40, "{left} spares are left, with room for {room}");
}

#[test]
fn the_last_reference_frees() {
    let mut batches = Batches::default();
    let key = batches.open();
    batches.append(key, &[], |bytes| bytes.push(1));
    batches.hold(key);
    assert!(!batches.is_sole(key));
    batches.release(key);
    assert_eq!((batches.held(), batches.count(), batches.is_sole(key)), (1, 1, true));
    batches.release(key);
    assert_eq!((batches.held(), batches.count()), (0, 0));
}

#[test]
fn what_was_for_one_alone_leaves_few_spares() {
    let mut batches = Batches::default();
    let keys: Vec<BatchKey> = (0..500).map(|_| batches.open()).collect();
    keys.iter().for_each(|&key| batches.append(key, &[], |bytes| bytes.push(7)));
    keys.iter().for_each(|&key| batches.release(key));
    assert_eq!(batches.spare.len(), FEW);
}

/// `close` made a batch smaller that had just become a spare, and the bytes of the spares were not counted anew.
/// After some hundred turns no spare was kept any more.
#[test]
fn what_is_closed_becomes_a_spare_as_it_is() {
    let mut batches = Batches::default();
    for _ in 0..1000 {
        let key = batches.open_for(source());
        batches.append(key, &[], |bytes| bytes.resize(5000, 7));
        batches.close(key);
        let capacity = batches.spare.iter().map(|&key| batches.slab[key as usize].capacity()).sum::<usize>();
        assert_eq!((batches.spare.len(), batches.spare_bytes), (1, capacity));
        assert!(capacity >= 5000);
    }
}
