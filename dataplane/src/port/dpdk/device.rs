//! A device of DPDK's from its name to a running port, and back.
#![allow(unsafe_code, reason = "calls of DPDK")]

use super::eal::{self, error_text};
use super::errors::{self, OpenError};
use super::queue::Queue;
use super::{Config, Spread};
use crate::port::Mac;
use crate::port::handle::Link;
use dpdk_sys as dpdk;
use parking_lot::Mutex;
use std::ffi::{CStr, CString, c_uint};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Mbufs that a thread keeps in stock of a pool.
const STOCK: u32 = 512;
/// Names of pools must differ within a process.
static POOLS: AtomicU32 = AtomicU32::new(0);
/// The ports of devices that are open, and the pools of those that were: their mbufs may still be in others' rings.
static OPEN: Mutex<(Vec<u16>, Vec<Pool>)> = Mutex::new((Vec::new(), Vec::new()));

/// A pool of mbufs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool(pub(super) NonNull<dpdk::rte_mempool>);

// SAFETY: a pool may be used by all threads at the same time (DPDK Programmer's Guide, "Mempool Library").
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// A device that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct Device {
    port: u16,
    pools: Vec<Pool>,
    pub(super) facts: Facts,
}

/// What a device is like.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The PMD's name.
    pub(super) driver: String,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) rss_fields: u64,
    pub(super) rss_symmetric: bool,
    pub(super) promiscuous: bool,
    pub(super) tx_checksums: bool,
}

impl Facts {
    /// What flows are spread by, in words.
    pub(super) fn spread(&self) -> &'static str {
        if self.rss_fields & dpdk::UVS_RSS_SOURCE == dpdk::UVS_RSS_SOURCE {
            "sources"
        } else if self.rss_fields & dpdk::UVS_RSS_DESTINATION == dpdk::UVS_RSS_DESTINATION {
            "destinations"
        } else {
            "flows"
        }
    }
}

impl Device {
    /// Finds the device, or makes it, and starts it.
    pub(super) fn open(config: &Config) -> Result<Arc<Device>, OpenError> {
        let mut open = OPEN.lock();
        let port = find(&config.device)?;
        // What is there already is found again.
        if open.0.contains(&port) {
            return Err(OpenError::Used {
                device: config.device.clone(),
            });
        }
        open.0.push(port);
        drop(open);
        // From here on dropping it closes the device.
        let mut device = Device {
            port,
            pools: Vec::new(),
            facts: Facts {
                driver: String::new(),
                mac: Mac([0; 6]),
                mtu: 0,
                rss_fields: 0,
                rss_symmetric: false,
                promiscuous: false,
                tx_checksums: false,
            },
        };
        for _ in 0..config.workers {
            let pool = make_pool(config, port)?;
            device.pools.push(pool);
        }
        device.facts = device.start(config)?;
        Ok(Arc::new(device))
    }

    fn start(&self, config: &Config) -> Result<Facts, OpenError> {
        let mut pools: Vec<_> = self.pools.iter().map(|pool| pool.0.as_ptr()).collect();
        let wish = dpdk::uvs_wish {
            queues: config.workers,
            pools: pools.as_mut_ptr(),
            rx_descriptors: config.receive_descriptors,
            tx_descriptors: config.transmit_descriptors,
            mtu: config.mtu.unwrap_or(0),
            rss_fields: dpdk::UVS_RSS_FLOWS
                | match config.spread {
                    Spread::Flow => 0,
                    Spread::Source => dpdk::UVS_RSS_SOURCE,
                    Spread::Destination => dpdk::UVS_RSS_DESTINATION,
                },
        };
        // SAFETY: a struct of numbers and a pointer that may be null.
        let mut device: dpdk::uvs_device = unsafe { std::mem::zeroed() };
        let mut step = 0;
        let opened = eal::listening(|| {
            // SAFETY: the port is there, `wish` has a pool for each queue, and all of them outlive the call.
            match unsafe {
                dpdk::uvs_open(self.port, &raw const wish, &raw mut device, &raw mut step)
            } {
                0 => Ok(()),
                error => Err(error),
            }
        });
        if let Err((error, words)) = opened {
            return Err(errors::of_step(
                config,
                step,
                device.queues_max,
                error_text(error),
                words,
            ));
        }
        Ok(Facts {
            driver: text(device.driver),
            mac: Mac(device.mac),
            mtu: u32::from(device.mtu),
            rss_fields: device.rss_fields,
            rss_symmetric: device.rss_symmetric != 0,
            promiscuous: device.promiscuous != 0,
            tx_checksums: device.tx_checksums != 0,
        })
    }

    /// The queue pair of a worker; each is to be asked for once.
    pub(super) fn queue(self: &Arc<Device>, index: u16) -> Queue {
        let pool = self.pools[usize::from(index)];
        Queue::new(Arc::clone(self), self.port, index, pool)
    }

    pub(super) fn link(&self) -> Link {
        // SAFETY: the port is there as long as `self`.
        match unsafe { dpdk::uvs_link_is_up(self.port) } {
            0 => Link::Down,
            _ => Link::Up,
        }
    }

    /// Frames that the device lost for want of descriptors or mbufs, and that it could not send.
    pub(super) fn losses(&self) -> (u64, u64) {
        // SAFETY: a struct of numbers.
        let mut all: dpdk::uvs_statistics = unsafe { std::mem::zeroed() };
        // SAFETY: the port is there as long as `self`; without statistics, `all` stays as it is.
        unsafe { dpdk::uvs_statistics(self.port, &raw mut all) };
        (
            all.rx_missed + all.rx_errors + all.rx_no_mbuf,
            all.tx_errors,
        )
    }

    /// All that the device counts, by the PMD's names.
    pub(super) fn statistics(&self) -> Vec<(String, u64)> {
        // SAFETY: asks how many there are.
        let count = unsafe { dpdk::rte_eth_xstats_get(self.port, std::ptr::null_mut(), 0) };
        let count = usize::try_from(count).unwrap_or(0);
        let room = c_uint::try_from(count).expect("it was a c_int");
        // SAFETY: structs of numbers and characters.
        let mut names: Vec<dpdk::rte_eth_xstat_name> = vec![unsafe { std::mem::zeroed() }; count];
        let mut values = vec![dpdk::rte_eth_xstat { id: 0, value: 0 }; count];
        // SAFETY: there is room for as many as it is told.
        let named = unsafe { dpdk::rte_eth_xstats_get_names(self.port, names.as_mut_ptr(), room) };
        // SAFETY: as above.
        let valued = unsafe { dpdk::rte_eth_xstats_get(self.port, values.as_mut_ptr(), room) };
        let count = usize::try_from(named.min(valued)).unwrap_or(0).min(count);
        let value = |value: &dpdk::rte_eth_xstat| {
            let name = names[..count].get(usize::try_from(value.id).ok()?)?;
            Some((text(name.name.as_ptr()), value.value))
        };
        values[..count].iter().filter_map(value).collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        // SAFETY: no queue is left: each holds a reference to `self`.
        unsafe { dpdk::uvs_close(self.port) };
        open.1.append(&mut self.pools);
        open.0.retain(|port| *port != self.port);
        if open.0.is_empty() {
            for pool in open.1.drain(..) {
                // SAFETY: no device is left that could hold one of its mbufs.
                unsafe { dpdk::rte_mempool_free(pool.0.as_ptr()) };
            }
        }
    }
}

/// The number of the port that a device is, which is made if need be.
fn find(device: &str) -> Result<u16, OpenError> {
    errors::check_pci(device)?;
    let refused = |error: String, words: String| OpenError::Refused {
        device: device.to_owned(),
        error,
        words,
    };
    let name = super::pci_address(device)
        .unwrap_or_else(|| device.split(',').next().unwrap_or_default().to_owned());
    let name = CString::new(name).map_err(|_| OpenError::NoSuchDevice {
        device: device.to_owned(),
    })?;
    let whole = CString::new(device).map_err(|_| OpenError::NoSuchDevice {
        device: device.to_owned(),
    })?;
    let probed = eal::listening(|| {
        // SAFETY: the environment has begun, and the text outlives the call.
        match unsafe { dpdk::rte_dev_probe(whole.as_ptr()) } {
            0 => Ok(()),
            error => Err(error),
        }
    });
    // SAFETY: as above.
    let port = unsafe { dpdk::uvs_port_of(name.as_ptr()) };
    match (probed, u16::try_from(port)) {
        (Ok(()), Ok(port)) => Ok(port),
        // It was there already.
        (Err((error, _)), Ok(port)) if error == -libc::EEXIST => Ok(port),
        (Err((error, words)), _) => Err(refused(error_text(error), words)),
        (Ok(()), Err(_)) => Err(OpenError::NoSuchDevice {
            device: device.to_owned(),
        }),
    }
}

fn make_pool(config: &Config, port: u16) -> Result<Pool, OpenError> {
    let number = POOLS.fetch_add(1, Relaxed);
    let name = CString::new(format!("uvs{number}")).expect("no zero in it");
    let longest = u32::from(config.mtu.unwrap_or(1500)).max(1500) + 18 + 8;
    let room = dpdk::RTE_PKTMBUF_HEADROOM + longest.next_multiple_of(64).max(2048);
    let room = u16::try_from(room).map_err(|_| OpenError::OutOfRange {
        field: "mtu",
        value: config.mtu.unwrap_or(0).into(),
        accepted: "64 to 9216",
    })?;
    // SAFETY: the port is there.
    let socket = unsafe { dpdk::rte_eth_dev_socket_id(port) };
    let made = eal::listening(|| {
        // SAFETY: the environment has begun, and the name outlives the call.
        let pool = unsafe {
            dpdk::rte_pktmbuf_pool_create(
                name.as_ptr(),
                config.mbufs,
                STOCK.min(config.mbufs / 2),
                0,
                room,
                socket,
            )
        };
        // SAFETY: reads a variable of this thread.
        NonNull::new(pool).ok_or_else(|| error_text(unsafe { dpdk::uvs_errno() }))
    });
    made.map(Pool)
        .map_err(|(error, words)| OpenError::NoMemory {
            device: config.device.clone(),
            mbufs: config.mbufs,
            mib: (u64::from(config.mbufs) * (u64::from(room) + 256)) >> 20,
            error,
            words,
        })
}

/// A text of DPDK's.
fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null; DPDK's texts end with a zero.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
