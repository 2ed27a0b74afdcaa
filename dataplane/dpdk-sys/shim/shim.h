/* What uvs uses of DPDK: these headers, and functions for what they have inline only. */
#ifndef UVS_DPDK_SHIM_H
#define UVS_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_rcu_qsbr.h>

/* rte_errno, which is a variable of each thread. */
int uvs_errno(void);

/* rte_rcu_qsbr_thread_online. */
void uvs_rcu_online(struct rte_rcu_qsbr *v, unsigned int thread);

/* rte_rcu_qsbr_thread_offline. */
void uvs_rcu_offline(struct rte_rcu_qsbr *v, unsigned int thread);

/* rte_rcu_qsbr_quiescent. */
void uvs_rcu_quiescent(struct rte_rcu_qsbr *v, unsigned int thread);

/*
 * A frame in one mbuf, whose buffer lies right behind the struct:
 *
 *   mbuf        buffer                                    buffer + capacity
 *   | rte_mbuf  |    start     | len bytes of frame |     |
 */
struct uvs_frame {
	/* Where the mbuf's buffer begins, which is where the mbuf itself ends. */
	uint8_t *buffer;
	uint32_t len;
	uint16_t start;
	uint16_t capacity;
};

/*
 * rte_eth_rx_burst of at most UVS_BURST_MAX frames. What comes in several segments, or in a buffer elsewhere, is copied
 * into an mbuf of the pool; what cannot be is freed and added to *lost.
 */
enum { UVS_BURST_MAX = 32 };
uint16_t uvs_receive(uint16_t port, uint16_t queue, struct rte_mempool *pool, struct uvs_frame *frames, uint16_t count,
		     uint64_t *lost);

/* rte_eth_tx_burst of at most UVS_BURST_MAX frames; what the device does not take is freed. Returns what it took. */
uint16_t uvs_transmit(uint16_t port, uint16_t queue, const struct uvs_frame *frames, uint16_t count);

/* A frame of len bytes, whatever they hold, behind the pool's headroom. False when the pool is empty or len too long. */
int uvs_alloc(struct rte_mempool *pool, uint32_t len, struct uvs_frame *frame);

/* Lets the device complete the TCP or UDP checksum of a packet whose transport header is l4 bytes into the frame. */
void uvs_leave_checksum(uint8_t *buffer, uint16_t l4, int is_udp, int is_ipv6);

/* rte_pktmbuf_free of the mbuf in front of a buffer. */
void uvs_free(uint8_t *buffer);

/* Takes a file descriptor over to keep in what DPDK logs; 0 when it can. Once a process. */
int uvs_log_keep_in(int fd);

/* Whether what DPDK logs is kept there, or goes to stderr. */
void uvs_log_keep(int keep);

/* What a device is to be like. */
struct uvs_wish {
	/* RX/TX queue pairs, and the pool of each. */
	uint16_t queues;
	struct rte_mempool **pools;
	uint16_t rx_descriptors;
	uint16_t tx_descriptors;
	/* Largest IP packet; 0 to leave it. */
	uint16_t mtu;
	/* What flows are spread by, of RTE_ETH_RSS_*. */
	uint64_t rss_fields;
};

/* What it is like. */
struct uvs_device {
	/* Of the PMD; never freed. */
	const char *driver;
	uint16_t queues_max;
	uint16_t mtu;
	uint8_t mac[6];
	/* RTE_ETH_RSS_* that are set, and whether with the key that makes both directions of a flow alike. */
	uint64_t rss_fields;
	uint8_t rss_symmetric;
	uint8_t promiscuous;
	uint8_t allmulticast;
	/* Whether it completes the checksums of TCP and UDP. */
	uint8_t tx_checksums;
};

/* The steps of uvs_open at which it may fail. */
enum {
	UVS_STEP_NONE,
	UVS_STEP_INFO,
	UVS_STEP_QUEUES,
	UVS_STEP_CONFIGURE,
	UVS_STEP_DESCRIPTORS,
	UVS_STEP_RX_QUEUE,
	UVS_STEP_TX_QUEUE,
	UVS_STEP_MTU,
	UVS_STEP_START,
	UVS_STEP_MAC,
};

/* What flows are spread by: both ends of a packet, or its source or its destination alone. */
static const uint64_t UVS_RSS_FLOWS = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
static const uint64_t UVS_RSS_SOURCE = RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY;
static const uint64_t UVS_RSS_DESTINATION = RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY;

/*
 * Configures and starts a device. On failure it is stopped, step says at which step it failed, and the result is what
 * DPDK returned (negative). device is filled as far as it is known.
 */
int uvs_open(uint16_t port, const struct uvs_wish *wish, struct uvs_device *device, uint32_t *step);

/* Stops and closes a device, and takes it out of DPDK, so that it may be opened again. */
void uvs_close(uint16_t port);

/* Whether there is a carrier. */
int uvs_link_is_up(uint16_t port);

/* What rte_eth_stats_get says. */
struct uvs_statistics {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t rx_no_mbuf;
	uint64_t tx_errors;
};
int uvs_statistics(uint16_t port, struct uvs_statistics *statistics);

/* The Ethernet port of a device by its name, which is that of the port itself or of the device behind it; -1: none. */
int uvs_port_of(const char *name);

#endif
