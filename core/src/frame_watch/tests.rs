use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// What is seen in reads of `size`, each with the index of its read, and what the library receives.
fn watched(sender: Sender, stream: &[u8], size: usize) -> (Vec<(usize, Seen)>, Vec<u8>) {
    let (mut watch, mut passed, mut seen) = (FrameWatch::new(sender), stream.to_vec(), Vec::new());
    for (i, read) in passed.chunks_mut(size).enumerate() {
        watch.on_bytes(read, |what| seen.push((i, what)));
    }
    (seen, passed)
}

fn client_stream() -> Vec<u8> {
    [
        PREFACE.to_vec(),
        frame(
            SETTINGS,
            0,
            &[setting(4, 70_000), setting(MAX_CONCURRENT_STREAMS, 5)].concat(),
        ),
        frame(SETTINGS, ACK, &[]),
        frame(0, 0, &[GOAWAY; 300]),
        frame(GOAWAY, 0, &[0; 8]),
        frame(GOAWAY, 0, &[0; 8]),
    ]
    .concat()
}

#[test]
fn reports_each_thing_once_at_any_split() {
    let whole = client_stream();
    for size in 1..whole.len() {
        let (seen, _) = watched(Sender::Client, &whole, size);
        let setting_ends = PREFACE.len() + HEAD_BYTES + 2 * SETTING_BYTES;
        let goaway_ends = setting_ends + HEAD_BYTES + HEAD_BYTES + 300 + HEAD_BYTES + GOAWAY_BYTES;
        let read = |end: usize| (end - 1) / size;
        let expected = [
            (read(setting_ends), Seen::MaxStreams(5)),
            (read(setting_ends), Seen::Settings),
            (read(goaway_ends), Seen::GoAway(NO_ERROR)),
        ];
        assert_eq!(seen, expected, "reads of {size}");
    }
}

#[test]
fn hides_only_the_first_goaway_of_a_client_at_any_split() {
    let whole = client_stream();
    let kind = whole.len() - 2 * (HEAD_BYTES + 8) + KIND_AT;
    let mut expected = whole.clone();
    expected[kind] = IGNORED;
    for size in 1..whole.len() {
        assert_eq!(
            watched(Sender::Client, &whole, size).1,
            expected,
            "reads of {size}"
        );
    }
}

#[test]
fn a_server_needs_no_preface_and_its_goaway_passes() {
    let stream = [frame(SETTINGS, 0, &[]), frame(GOAWAY, 0, &[0; 8])].concat();
    let (seen, passed) = watched(Sender::Server, &stream, 3);
    let seen: Vec<_> = seen.into_iter().map(|(_, what)| what).collect();
    assert_eq!(seen, [Seen::Settings, Seen::GoAway(NO_ERROR)]);
    assert_eq!(passed, stream);
}

#[test]
fn hides_the_acknowledgement_of_our_ping_and_of_no_other() {
    let theirs = frame(PING_KIND, ACK, b"shutdown");
    let stream = [
        frame(SETTINGS, 0, &[]),
        PONG.to_vec(),
        theirs.clone(),
        PONG.to_vec(),
    ]
    .concat();
    let (_, passed) = watched(Sender::Server, &stream, stream.len());
    let mut hidden = PONG;
    hidden[KIND_AT] = IGNORED;
    let expected = [frame(SETTINGS, 0, &[]), hidden.to_vec(), theirs, hidden.to_vec()].concat();
    assert_eq!(passed, expected);
}

#[test]
fn a_later_limit_is_reported_too() {
    let stream = [
        frame(SETTINGS, 0, &setting(MAX_CONCURRENT_STREAMS, 5)),
        frame(SETTINGS, 0, &setting(MAX_CONCURRENT_STREAMS, 50)),
    ]
    .concat();
    let (seen, _) = watched(Sender::Server, &stream, 4);
    let seen: Vec<_> = seen.into_iter().map(|(_, what)| what).collect();
    assert_eq!(seen, [Seen::MaxStreams(5), Seen::Settings, Seen::MaxStreams(50)]);
}

#[test]
fn data_that_looks_like_frames_is_not_seen() {
    let stream = [
        PREFACE.to_vec(),
        frame(0, 0, &[frame(GOAWAY, 0, &[0; 8]), PONG.to_vec()].concat()),
        frame(PING_KIND, 0, &[GOAWAY; 8]),
    ]
    .concat();
    assert_eq!(watched(Sender::Client, &stream, 7), (vec![], stream.clone()));
}

#[test]
fn other_protocols_are_not_looked_at() {
    let stream = b"GET / HTTP/1.1\r\n\r\n\0\0\x08\x07\0\0\0\0\0";
    assert_eq!(watched(Sender::Client, stream, 4), (vec![], stream.to_vec()));
}

proptest! {
    /// Frames of any kind and length, full of what looks like a GOAWAY, in any reads: the first one is seen, once,
    /// in the read that completes its error code.
    #[test]
    fn the_first_goaway_is_seen_whatever_is_before_it_and_however_it_is_cut(
        frames in prop::collection::vec((0..10u8, prop_oneof![0..600usize, 65_000..140_000usize]), 0..5),
        cuts in prop::collection::vec(1..50_000usize, 0..20),
    ) {
        let mut stream = PREFACE.to_vec();
        let mut code_ends = None;
        for (kind, length) in frames {
            if kind == GOAWAY && code_ends.is_none() {
                // A frame that is too short for a code is an error as soon as that is known.
                let payload = if length < GOAWAY_BYTES { 0 } else { GOAWAY_BYTES };
                code_ends = Some(stream.len() + HEAD_BYTES + payload);
            }
            stream.extend(frame(kind, 0, &vec![GOAWAY; length]));
        }
        let (mut watch, mut from, mut cuts) = (FrameWatch::new(Sender::Client), 0, cuts.into_iter());
        while from < stream.len() {
            let to = cuts.next().map_or(stream.len(), |length| (from + length).min(stream.len()));
            let expected = code_ends.is_some_and(|end| (from + 1..=to).contains(&end));
            let mut seen = false;
            watch.on_bytes(&mut stream[from..to], |what| seen |= matches!(what, Seen::GoAway(_)));
            prop_assert_eq!(seen, expected);
            from = to;
        }
    }

    #[test]
    fn any_bytes_are_borne(
        client: bool,
        mut reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10),
    ) {
        let mut watch = FrameWatch::new(if client { Sender::Client } else { Sender::Server });
        let (mut goaways, mut settings) = (0, 0);
        for read in &mut reads {
            watch.on_bytes(read, |what| match what {
                Seen::GoAway(_) => goaways += 1,
                Seen::Settings => settings += 1,
                Seen::MaxStreams(_) => {}
            });
        }
        prop_assert!(goaways <= 1 && settings <= 1);
    }
}

#[test]
fn a_goaway_tells_its_error_code_at_any_split() {
    let payload = [&[0, 0, 0, 1, 0, 0, 0, 11][..], b"enhance your calm"].concat();
    let stream = [frame(GOAWAY, 0, &payload), frame(SETTINGS, 0, &[])].concat();
    for size in 1..stream.len() {
        let (seen, _) = watched(Sender::Server, &stream, size);
        let seen: Vec<_> = seen.into_iter().map(|(_, what)| what).collect();
        assert_eq!(seen, [Seen::GoAway(11), Seen::Settings], "reads of {size}");
    }
}
