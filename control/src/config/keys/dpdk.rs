//! Keys of DPDK. Those of its ports stand among all ports' keys.

use super::{Accepts, Table, of, optional, switch_key};

/// `[dpdk]`.
pub const DPDK: Table = Table {
    name: "dpdk",
    keys: &[
        switch_key(
            "huge_pages",
            "true",
            "whether DPDK's memory is in huge pages; without them it is slower, and NICs need an IOMMU",
        ),
        optional(
            "memory_mib",
            "an amount of memory in MiB",
            Accepts::Number(64, 1_048_576),
            "with huge pages what is needed, otherwise 512",
            "memory that DPDK takes at the start",
        ),
        of(
            "an argument",
            optional(
                "arguments",
                "a list of DPDK's own arguments",
                Accepts::Form(
                    "at most 32 arguments of DPDK's environment (EAL) but those that uvs sets itself, such as [\"--log-level=pmd:8\"]",
                ),
                "[]",
                "more arguments of DPDK's environment",
            ),
        ),
        optional(
            "receive_descriptors",
            "a number of descriptors",
            Accepts::Number(32, 32_768),
            "1024",
            "frames that may wait for a worker in the NIC's ring; the device may round it",
        ),
        optional(
            "transmit_descriptors",
            "a number of descriptors",
            Accepts::Number(32, 32_768),
            "1024",
            "frames that may wait to be sent in the NIC's ring; the device may round it",
        ),
        optional(
            "mbufs",
            "a number of buffers",
            Accepts::Number(1024, 16_777_216),
            "8192",
            "buffers of each queue, about 2.3 KiB each: more than both rings together",
        ),
    ],
};
