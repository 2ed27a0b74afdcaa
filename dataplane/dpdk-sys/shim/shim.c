#include "shim.h"

#include <stdio.h>
#include <string.h>

int uvs_errno(void)
{
	return rte_errno;
}

void uvs_rcu_online(struct rte_rcu_qsbr *v, unsigned int thread)
{
	rte_rcu_qsbr_thread_online(v, thread);
}

void uvs_rcu_offline(struct rte_rcu_qsbr *v, unsigned int thread)
{
	rte_rcu_qsbr_thread_offline(v, thread);
}

void uvs_rcu_quiescent(struct rte_rcu_qsbr *v, unsigned int thread)
{
	rte_rcu_qsbr_quiescent(v, thread);
}

static inline uint8_t *buffer_of(struct rte_mbuf *mbuf)
{
	return (uint8_t *)(mbuf + 1);
}

static inline struct rte_mbuf *mbuf_of(uint8_t *buffer)
{
	return (struct rte_mbuf *)buffer - 1;
}

/* Whether the frame lies as struct uvs_frame says. */
static inline int is_plain(const struct rte_mbuf *mbuf)
{
	return mbuf->nb_segs == 1 && mbuf->buf_addr == (const void *)(mbuf + 1);
}

static __attribute__((cold, noinline)) struct rte_mbuf *made_plain(struct rte_mbuf *mbuf, struct rte_mempool *pool)
{
	struct rte_mbuf *copy = rte_pktmbuf_copy(mbuf, pool, 0, UINT32_MAX);

	rte_pktmbuf_free(mbuf);
	if (copy != NULL && !is_plain(copy)) {
		rte_pktmbuf_free(copy);
		copy = NULL;
	}
	return copy;
}

uint16_t uvs_receive(uint16_t port, uint16_t queue, struct rte_mempool *pool, struct uvs_frame *frames, uint16_t count,
		     uint64_t *lost)
{
	struct rte_mbuf *mbufs[UVS_BURST_MAX];
	uint16_t received, kept = 0;

	received = rte_eth_rx_burst(port, queue, mbufs, RTE_MIN(count, UVS_BURST_MAX));
	for (uint16_t i = 0; i < received; i++)
		rte_prefetch0((uint8_t *)(mbufs[i] + 1) + RTE_PKTMBUF_HEADROOM);
	for (uint16_t i = 0; i < received; i++) {
		struct rte_mbuf *mbuf = mbufs[i];

		if (unlikely(!is_plain(mbuf))) {
			mbuf = made_plain(mbuf, pool);
			if (mbuf == NULL) {
				++*lost;
				continue;
			}
		}
		frames[kept++] = (struct uvs_frame){
			.buffer = buffer_of(mbuf),
			.len = mbuf->data_len,
			.start = mbuf->data_off,
			.capacity = mbuf->buf_len,
		};
	}
	return kept;
}

uint16_t uvs_transmit(uint16_t port, uint16_t queue, const struct uvs_frame *frames, uint16_t count)
{
	struct rte_mbuf *mbufs[UVS_BURST_MAX];
	uint16_t sent;

	count = RTE_MIN(count, UVS_BURST_MAX);
	for (uint16_t i = 0; i < count; i++) {
		struct rte_mbuf *mbuf = mbuf_of(frames[i].buffer);

		mbuf->data_off = frames[i].start;
		mbuf->data_len = frames[i].len;
		mbuf->pkt_len = frames[i].len;
		mbufs[i] = mbuf;
	}
	sent = rte_eth_tx_burst(port, queue, mbufs, count);
	if (unlikely(sent < count))
		rte_pktmbuf_free_bulk(mbufs + sent, count - sent);
	return sent;
}

int uvs_alloc(struct rte_mempool *pool, uint32_t len, struct uvs_frame *frame)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(pool);

	if (mbuf == NULL)
		return 0;
	if (len > rte_pktmbuf_tailroom(mbuf)) {
		rte_pktmbuf_free(mbuf);
		return 0;
	}
	*frame = (struct uvs_frame){
		.buffer = buffer_of(mbuf),
		.len = len,
		.start = mbuf->data_off,
		.capacity = mbuf->buf_len,
	};
	return 1;
}

void uvs_leave_checksum(uint8_t *buffer, uint16_t l4, int is_udp, int is_ipv6)
{
	struct rte_mbuf *mbuf = mbuf_of(buffer);

	mbuf->l2_len = RTE_ETHER_HDR_LEN;
	mbuf->l3_len = l4 - RTE_ETHER_HDR_LEN;
	mbuf->ol_flags |= is_udp ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM;
	mbuf->ol_flags |= is_ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
}

void uvs_free(uint8_t *buffer)
{
	rte_pktmbuf_free(mbuf_of(buffer));
}

static FILE *kept;

int uvs_log_keep_in(int fd)
{
	kept = fdopen(fd, "w");
	if (kept == NULL)
		return -1;
	setvbuf(kept, NULL, _IONBF, 0);
	return 0;
}

void uvs_log_keep(int keep)
{
	rte_openlog_stream(keep ? kept : stderr);
}

/*
 * A key of period 16 bits: with it, the Toeplitz hash of (a, b) is that of (b, a).
 * Source: Woo, Park, "Scalable TCP Session Monitoring with Symmetric Receive-side Scaling" (KAIST, 2012).
 */
enum { KEY_LEN_MAX = 64 };

static void symmetric_key(uint8_t *key)
{
	for (int i = 0; i < KEY_LEN_MAX; i += 2) {
		key[i] = 0x6d;
		key[i + 1] = 0x5a;
	}
}

/* Spreads flows by what the device can of the wish: by the flow where it cannot tell the sides apart. */
static uint64_t rss_fields(uint64_t wish, uint64_t capable)
{
	uint64_t flows = wish & UVS_RSS_FLOWS & capable;
	uint64_t side = wish & ~UVS_RSS_FLOWS;

	return flows != 0 && (side & capable) == side ? flows | side : flows;
}

static int configure(uint16_t port, const struct uvs_wish *wish, const struct rte_eth_dev_info *info)
{
	struct rte_eth_conf conf;
	uint8_t key[KEY_LEN_MAX];
	int result;

	memset(&conf, 0, sizeof(conf));
	conf.txmode.offloads = info->tx_offload_capa & (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
	/* DPDK takes an Ethernet MTU for 0. */
	conf.rxmode.mtu = wish->mtu;
	conf.rx_adv_conf.rss_conf.rss_hf = rss_fields(wish->rss_fields, info->flow_type_rss_offloads);
	if (wish->queues == 1 || conf.rx_adv_conf.rss_conf.rss_hf == 0) {
		conf.rx_adv_conf.rss_conf.rss_hf = 0;
		return rte_eth_dev_configure(port, wish->queues, wish->queues, &conf);
	}
	conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	if (info->hash_key_size != 0 && info->hash_key_size <= KEY_LEN_MAX) {
		symmetric_key(key);
		conf.rx_adv_conf.rss_conf.rss_key = key;
		conf.rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
	}
	result = rte_eth_dev_configure(port, wish->queues, wish->queues, &conf);
	if (result == 0)
		return 0;
	/* What it says that it can is not always what it takes: its own key, then its own fields. */
	conf.rx_adv_conf.rss_conf.rss_key = NULL;
	conf.rx_adv_conf.rss_conf.rss_key_len = 0;
	result = rte_eth_dev_configure(port, wish->queues, wish->queues, &conf);
	if (result == 0)
		return 0;
	conf.rx_adv_conf.rss_conf.rss_hf = rss_fields(UVS_RSS_FLOWS, info->flow_type_rss_offloads);
	return rte_eth_dev_configure(port, wish->queues, wish->queues, &conf);
}

static int set_up(uint16_t port, const struct uvs_wish *wish, struct uvs_device *device, uint32_t *step)
{
	struct rte_eth_dev_info info;
	uint16_t rx = wish->rx_descriptors, tx = wish->tx_descriptors;
	int result, socket;

	*step = UVS_STEP_INFO;
	result = rte_eth_dev_info_get(port, &info);
	if (result != 0)
		return result;
	device->driver = info.driver_name;
	device->queues_max = RTE_MIN(info.max_rx_queues, info.max_tx_queues);
	device->tx_checksums = (~info.tx_offload_capa & (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)) == 0;
	*step = UVS_STEP_QUEUES;
	if (wish->queues > device->queues_max)
		return -EINVAL;
	*step = UVS_STEP_CONFIGURE;
	result = configure(port, wish, &info);
	if (result != 0)
		return result;
	*step = UVS_STEP_DESCRIPTORS;
	result = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx, &tx);
	if (result != 0)
		return result;
	socket = rte_eth_dev_socket_id(port);
	for (uint16_t queue = 0; queue < wish->queues; queue++) {
		*step = UVS_STEP_RX_QUEUE;
		result = rte_eth_rx_queue_setup(port, queue, rx, socket, NULL, wish->pools[queue]);
		if (result != 0)
			return result;
		*step = UVS_STEP_TX_QUEUE;
		result = rte_eth_tx_queue_setup(port, queue, tx, socket, NULL);
		if (result != 0)
			return result;
	}
	*step = UVS_STEP_MTU;
	if (wish->mtu != 0) {
		result = rte_eth_dev_set_mtu(port, wish->mtu);
		if (result != 0)
			return result;
	}
	*step = UVS_STEP_START;
	result = rte_eth_dev_start(port);
	if (result != 0)
		return result;
	*step = UVS_STEP_MAC;
	result = rte_eth_macaddr_get(port, (struct rte_ether_addr *)device->mac);
	if (result == 0)
		result = rte_eth_dev_get_mtu(port, &device->mtu);
	return result;
}

/* Whether the key that the device has is the symmetric one. */
static void look_at_rss(uint16_t port, struct uvs_device *device)
{
	uint8_t key[KEY_LEN_MAX] = {0}, symmetric[KEY_LEN_MAX];
	struct rte_eth_rss_conf rss = {.rss_key = key, .rss_key_len = KEY_LEN_MAX};

	if (rte_eth_dev_rss_hash_conf_get(port, &rss) != 0)
		return;
	symmetric_key(symmetric);
	device->rss_fields = rss.rss_hf;
	device->rss_symmetric = rss.rss_hf != 0 && memcmp(key, symmetric, 40) == 0;
}

int uvs_open(uint16_t port, const struct uvs_wish *wish, struct uvs_device *device, uint32_t *step)
{
	int result;

	memset(device, 0, sizeof(*device));
	result = set_up(port, wish, device, step);
	if (result != 0) {
		rte_eth_dev_stop(port);
		return result;
	}
	*step = UVS_STEP_NONE;
	/* Not every device has these, nor needs them. */
	device->promiscuous = rte_eth_promiscuous_enable(port) == 0;
	device->allmulticast = rte_eth_allmulticast_enable(port) == 0;
	if (wish->queues > 1)
		look_at_rss(port, device);
	return 0;
}

void uvs_close(uint16_t port)
{
	struct rte_eth_dev_info info;
	struct rte_device *device = NULL;

	if (rte_eth_dev_info_get(port, &info) == 0)
		device = info.device;
	rte_eth_dev_stop(port);
	rte_eth_dev_close(port);
	if (device != NULL)
		rte_dev_remove(device);
}

int uvs_link_is_up(uint16_t port)
{
	struct rte_eth_link link;

	memset(&link, 0, sizeof(link));
	return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

int uvs_statistics(uint16_t port, struct uvs_statistics *statistics)
{
	struct rte_eth_stats stats;
	int result = rte_eth_stats_get(port, &stats);

	if (result == 0)
		*statistics = (struct uvs_statistics){
			.rx_packets = stats.ipackets,
			.tx_packets = stats.opackets,
			.rx_bytes = stats.ibytes,
			.tx_bytes = stats.obytes,
			.rx_missed = stats.imissed,
			.rx_errors = stats.ierrors,
			.rx_no_mbuf = stats.rx_nombuf,
			.tx_errors = stats.oerrors,
		};
	return result;
}

int uvs_port_of(const char *name)
{
	struct rte_eth_dev_info info;
	uint16_t port;

	if (rte_eth_dev_get_port_by_name(name, &port) == 0)
		return port;
	RTE_ETH_FOREACH_DEV(port) {
		if (rte_eth_dev_info_get(port, &info) == 0 && info.device != NULL &&
		    strcmp(rte_dev_name(info.device), name) == 0)
			return port;
	}
	return -1;
}
