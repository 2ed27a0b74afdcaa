//! The rewriters against what the kernel did with the same frames.

use super::encapsulating::{ENCAPSULATED, encapsulation};
use super::tunnelling::encapsulated;
use super::vectors::{ANSWERED, ECHOED, RELATED, TRANSLATED, TUNNELLED, Vector};
use crate::frame::Offload;
use crate::packet::icmp::{self, ERROR_V6_LEN, ErrorKind};
use crate::packet::sample::{Sample, assert_matches, fix_header, hex};
use crate::packet::wire::{self, ETHERNET_LEN, read_array, write_u16};
use crate::packet::{Tuple, V4, V6, checksum};
use crate::port::Mac;
use crate::rewrite::{
    Outer, Translation, Tunnel, decrement_ttl, set_macs, translate, translate_error,
};

/// The bytes of what the kernel sent, zero where it chose at random, with a header checksum to match.
fn after(vector: &Vector) -> Vec<u8> {
    let mut frame = hex(&vector.after.replace('.', "0"));
    if vector.after.contains('.') && is_v4(&frame) {
        fix_header(&mut frame);
    }
    frame
}

fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0]
}

/// The translation that makes one tuple out of the other.
fn between<F: Sample>(old: &Tuple<F>, new: &Tuple<F>) -> Translation<F> {
    let source = (new.source != old.source || new.source_port != old.source_port)
        .then_some((new.source, new.source_port));
    let destination = (new.destination != old.destination
        || new.destination_port != old.destination_port)
        .then_some((new.destination, new.destination_port));
    Translation::new(old, source, destination)
}

fn forward<F: Sample>(frame: &mut [u8], expected: &[u8]) {
    let packet = F::packet(frame, &Offload::NONE);
    decrement_ttl(frame, &packet).unwrap();
    set_macs(
        frame,
        Mac(read_array(expected, 0)),
        Mac(read_array(expected, 6)),
    );
}

fn translated<F: Sample>(vector: &Vector) -> Vec<u8> {
    let (mut frame, expected) = (hex(vector.before), after(vector));
    let packet = F::packet(&frame, &Offload::NONE);
    let translation = between(&packet.tuple, &F::packet(&expected, &Offload::NONE).tuple);
    forward::<F>(&mut frame, &expected);
    translate(&mut frame, &packet, &translation, &Offload::NONE);
    frame
}

#[test]
fn nat_and_dr_send_what_the_kernel_sends() {
    assert!(TRANSLATED.len() > 40);
    for vector in TRANSLATED {
        let v4 = is_v4(&hex(vector.before));
        let frame = if v4 {
            translated::<V4>(vector)
        } else {
            translated::<V6>(vector)
        };
        assert_matches(vector.about, &frame, vector.after);
    }
}

fn tunnelled<F: Sample>(vector: &Vector) -> Vec<u8> {
    let (mut frame, expected) = (hex(vector.before), after(vector));
    let packet = F::packet(&frame, &Offload::NONE);
    forward::<F>(&mut frame, &expected);
    let outer = if is_v4(&expected) {
        let (source, destination) = (
            read_array::<4>(&expected, 26).into(),
            read_array::<4>(&expected, 30).into(),
        );
        Outer::V4 {
            source,
            destination,
        }
    } else {
        let (source, destination) = (
            read_array::<16>(&expected, 22).into(),
            read_array::<16>(&expected, 38).into(),
        );
        Outer::V6 {
            source,
            destination,
        }
    };
    // With `pmtu_disc` off the kernel did not copy DF.
    let copy_dont_fragment = !is_v4(&expected) || expected[20] & 0x40 != 0 || !packet.dont_fragment;
    encapsulated(
        &frame,
        &packet,
        &Tunnel {
            outer,
            copy_dont_fragment,
            encapsulation: encapsulation(vector.after),
        },
        0,
    )
    .unwrap()
}

#[test]
fn tun_sends_what_the_kernel_sends() {
    assert!(TUNNELLED.len() > 8);
    for vector in TUNNELLED.iter().chain(ENCAPSULATED) {
        let v4 = is_v4(&hex(vector.before));
        let frame = if v4 {
            tunnelled::<V4>(vector)
        } else {
            tunnelled::<V6>(vector)
        };
        assert_matches(vector.about, &frame, vector.after);
    }
}

fn answered<F: Sample>(vector: &Vector, kind: ErrorKind) -> Vec<u8> {
    let mut scratch = [0; ERROR_V6_LEN];
    let from = F::packet(&after(vector), &Offload::NONE).tuple.source;
    let len = F::error(&mut scratch, kind, &hex(vector.before), from).unwrap();
    scratch[..len].to_vec()
}

#[test]
fn errors_are_worded_as_the_kernel_words_them() {
    assert!(ANSWERED.len() > 4);
    for vector in ANSWERED {
        let expected = after(vector);
        let v4 = is_v4(&expected);
        let kind = match (v4, expected[if v4 { 34 } else { 54 }]) {
            (true, 11) | (false, 3) => ErrorKind::TimeExceeded,
            (true, 3) | (false, 1) => ErrorKind::PortUnreachable,
            (_, kind) => panic!("{}: type {kind}", vector.about),
        };
        let frame = if v4 {
            answered::<V4>(vector, kind)
        } else {
            answered::<V6>(vector, kind)
        };
        assert_matches(vector.about, &frame, vector.after);
    }
}

#[test]
fn echo_requests_are_answered_as_the_kernel_answers_them() {
    assert_eq!(ECHOED.len(), 2);
    for vector in ECHOED {
        let mut frame = hex(vector.before);
        let answered = if is_v4(&frame) {
            let packet = V4::packet(&frame, &Offload::NONE);
            icmp::echo_reply_v4(&mut frame, &packet)
        } else {
            let packet = V6::packet(&frame, &Offload::NONE);
            icmp::echo_reply_v6(&mut frame, &packet)
        };
        assert!(answered, "{}", vector.about);
        assert_matches(vector.about, &frame, vector.after);
    }
}

/// Puts the quoted transport checksum that `frame` came with back into it, as the kernel leaves it.
fn undo_quoted_checksum<F: Sample>(frame: &mut [u8], before: &[u8]) {
    let packet = F::packet(frame, &Offload::NONE);
    let quoted = icmp::parse_error(frame, &packet).unwrap();
    let (l4, tuple) = (packet.l4(), packet.tuple);
    let Some(offset) = wire::checksum_offset(quoted.tuple.protocol) else {
        return;
    };
    if quoted.available() < offset + 2 {
        return;
    }
    let field = usize::from(quoted.l4) + offset;
    frame[field..field + 2].copy_from_slice(&before[field..field + 2]);
    write_u16(frame, l4 + 2, 0);
    let checksum = checksum::icmp::<F>(tuple.source, tuple.destination, &frame[l4..]);
    write_u16(frame, l4 + 2, checksum);
}

fn related<F: Sample>(vector: &Vector) -> Vec<u8> {
    let (mut frame, expected) = (hex(vector.before), after(vector));
    let before = frame.clone();
    let (packet, new) = (
        F::packet(&frame, &Offload::NONE),
        F::packet(&expected, &Offload::NONE),
    );
    let quoted = icmp::parse_error(&frame, &packet).unwrap();
    let inner = between(
        &quoted.tuple,
        &icmp::parse_error(&expected, &new).unwrap().tuple,
    );
    forward::<F>(&mut frame, &expected);
    translate_error(
        &mut frame,
        &packet,
        &quoted,
        Some(new.tuple.source),
        Some(new.tuple.destination),
        &inner,
    );
    undo_quoted_checksum::<F>(&mut frame, &before);
    frame
}

#[test]
fn related_errors_are_relayed_as_the_kernel_relays_them() {
    assert!(RELATED.len() > 8);
    for vector in RELATED {
        let v4 = is_v4(&hex(vector.before));
        let frame = if v4 {
            related::<V4>(vector)
        } else {
            related::<V6>(vector)
        };
        assert_eq!(
            frame.len(),
            ETHERNET_LEN + (vector.after.len() / 2 - ETHERNET_LEN)
        );
        assert_matches(vector.about, &frame, vector.after);
    }
}
