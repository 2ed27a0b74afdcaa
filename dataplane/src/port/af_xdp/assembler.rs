//! Instructions of eBPF and the places that jumps lead to: as much of an assembler as one program needs.
//!
//! Source: RFC 9669 (BPF instruction set architecture); Linux include/uapi/linux/bpf.h.

/// One instruction as the kernel reads it (`struct bpf_insn`).
/// ```text
///  0      1           2        4
/// ┌──────┬─────┬─────┬────────┬───────────┐
/// │ code │ dst │ src │ offset │ immediate │  native byte order; dst and src are nibbles
/// └──────┴─────┴─────┴────────┴───────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// A register. `R1` to `R5` are arguments and lost in a call, `R0` is its result; `R6` to `R9` survive; `R10` is the end of
/// the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

/// How many bytes are loaded or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Four bytes.
    Word = 0x00,
    /// Two bytes.
    Half = 0x08,
    /// One byte.
    Byte = 0x10,
    /// Eight bytes.
    Double = 0x18,
}

/// When a jump is taken: the register against the other operand, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A place in a program that jumps lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

// Classes, and what qualifies them.
const LOAD_IMMEDIATE_64: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE_IMMEDIATE: u8 = 0x62;
const STORE: u8 = 0x63;
const ALU_64: u8 = 0x07;
const JUMP: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const OF_REGISTER: u8 = 0x08;
const ADD: u8 = 0x00;
const AND: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const MOVE: u8 = 0xb0;
/// In the source nibble of a 64-bit load: the immediate is a map's file descriptor.
const PSEUDO_MAP_FD: u8 = 1;

/// A program in the making.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they lead to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that [`place`](Self::place) puts somewhere.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(super) fn place(&mut self, label: Label) {
        let place = &mut self.labels[label.0];
        assert!(place.is_none(), "a label is in one place");
        *place = Some(self.code.len());
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.emit(LOAD | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) {
        self.emit(STORE | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = value`.
    pub(super) fn store_value(&mut self, size: Size, to: Register, offset: i16, value: i32) {
        self.emit(STORE_IMMEDIATE | size as u8, to as u8, 0, offset, value);
    }

    /// `to = from`.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.emit(ALU_64 | MOVE | OF_REGISTER, to as u8, from as u8, 0, 0);
    }

    /// `to = value`.
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.emit(ALU_64 | MOVE, to as u8, 0, 0, value);
    }

    /// `to += value`.
    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.emit(ALU_64 | ADD, to as u8, 0, 0, value);
    }

    /// `to += from`.
    pub(super) fn add_register(&mut self, to: Register, from: Register) {
        self.emit(ALU_64 | ADD | OF_REGISTER, to as u8, from as u8, 0, 0);
    }

    /// `to &= value`.
    pub(super) fn and(&mut self, to: Register, value: i32) {
        self.emit(ALU_64 | AND, to as u8, 0, 0, value);
    }

    /// `to <<= count`.
    pub(super) fn shift_left(&mut self, to: Register, count: i32) {
        self.emit(ALU_64 | SHIFT_LEFT, to as u8, 0, 0, count);
    }

    /// Goes to `label` if `left` compares so with `right`.
    pub(super) fn jump_if(&mut self, left: Register, how: If, right: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(JUMP | how as u8, left as u8, 0, 0, right);
    }

    /// The same with two registers.
    pub(super) fn jump_if_register(
        &mut self,
        left: Register,
        how: If,
        right: Register,
        label: Label,
    ) {
        self.jumps.push((self.code.len(), label));
        let code = JUMP | how as u8 | OF_REGISTER;
        self.emit(code, left as u8, right as u8, 0, 0);
    }

    /// Goes to `label`.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(JUMP, 0, 0, 0, 0);
    }

    /// `to =` the map behind a file descriptor: two instructions.
    pub(super) fn set_map(&mut self, to: Register, fd: i32) {
        self.emit(LOAD_IMMEDIATE_64, to as u8, PSEUDO_MAP_FD, 0, fd);
        self.emit(0, 0, 0, 0, 0);
    }

    /// Calls a helper function of the kernel.
    pub(super) fn call(&mut self, helper: i32) {
        self.emit(CALL, 0, 0, 0, helper);
    }

    /// Ends with the verdict in `R0`.
    pub(super) fn exit(&mut self) {
        self.emit(EXIT, 0, 0, 0, 0);
    }

    /// The program.
    ///
    /// # Panics
    /// When a label is nowhere, or too far from a jump to it.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0].expect("every label that is used was placed");
            // Counted from the instruction behind the jump.
            let distance = i64::try_from(to).and_then(|to| Ok(to - i64::try_from(at)? - 1));
            let distance = distance
                .ok()
                .and_then(|distance| i16::try_from(distance).ok());
            self.code[at].offset = distance.expect("a program is shorter than 32,768 instructions");
        }
        self.code
    }

    fn emit(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        let registers = if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        };
        self.code.push(Instruction {
            code,
            registers,
            offset,
            immediate,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_forward_and_backward_to_their_labels() {
        let mut assembler = Assembler::default();
        let (back, forth) = (assembler.label(), assembler.label());
        assembler.place(back);
        assembler.set(Register::R0, 2);
        assembler.jump_if(Register::R0, If::Equal, 2, forth);
        assembler.jump(back);
        assembler.place(forth);
        assembler.exit();
        let offsets: Vec<i16> = assembler.finish().iter().map(|one| one.offset).collect();
        assert_eq!(offsets, [0, 1, -3, 0]);
    }

    /// Source: `llvm-mc -triple=bpfel -show-encoding` of the same lines.
    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_an_assembler_encodes_them() {
        let mut assembler = Assembler::default();
        assembler.load(Size::Half, Register::R1, Register::R7, 12);
        assembler.store(Size::Word, Register::R10, -8, Register::R1);
        assembler.store_value(Size::Byte, Register::R10, -4, 6);
        assembler.add(Register::R9, 14);
        assembler.set_map(Register::R1, 5);
        assembler.call(1);
        let bytes = |one: &Instruction| {
            let mut bytes = vec![one.code, one.registers];
            bytes.extend(one.offset.to_le_bytes());
            bytes.extend(one.immediate.to_le_bytes());
            bytes
        };
        let code: Vec<_> = assembler.finish().iter().map(bytes).collect();
        assert_eq!(
            code,
            [
                [0x69, 0x71, 12, 0, 0, 0, 0, 0],
                [0x63, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
                [0x72, 0x0a, 0xfc, 0xff, 6, 0, 0, 0],
                [0x07, 0x09, 0, 0, 14, 0, 0, 0],
                [0x18, 0x11, 0, 0, 5, 0, 0, 0],
                [0; 8],
                [0x85, 0, 0, 0, 1, 0, 0, 0],
            ]
        );
    }
}
