/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "shim.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_cycles.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memzone.h>

int shim_errno(void)
{
	return rte_errno;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t shim_rdtsc(void)
{
	return rte_rdtsc();
}

uint64_t shim_heap_bytes(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < rte_socket_count(); i++) {
		struct rte_malloc_socket_stats stats;

		if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(i), &stats) == 0)
			sum += stats.heap_allocsz_bytes;
	}
	return sum;
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, pkts, n);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, pkts, n);
}

static void free_zone(struct rte_mempool_memhdr *chunk, void *zone)
{
	(void)chunk;
	rte_memzone_free(zone);
}

/* 0, or a negative errno value. */
static int fill_pool(struct rte_mempool *pool, int socket)
{
	const size_t stride = pool->header_size + pool->elt_size + pool->trailer_size;
	const size_t len = stride * pool->size;
	char name[RTE_MEMZONE_NAMESIZE];
	const struct rte_memzone *zone;
	int ret;

	snprintf(name, sizeof(name), "F_%s", pool->name);
	zone = rte_memzone_reserve_aligned(name, len, socket, 0, (unsigned int)sysconf(_SC_PAGESIZE));
	if (zone == NULL)
		return -rte_errno;
	ret = rte_mempool_populate_iova(pool, zone->addr, (rte_iova_t)(uintptr_t)zone->addr, len,
					free_zone, (void *)(uintptr_t)zone);
	if (ret <= 0) {
		rte_memzone_free(zone);
		return ret < 0 ? ret : -EINVAL;
	}
	/* The zone is the pool's now, and goes with it. */
	return (unsigned int)ret == pool->size ? 0 : -ENOMEM;
}

struct rte_mempool *shim_pktmbuf_pool_create(const char *name, unsigned int n, unsigned int cache,
					     uint16_t data_room, int socket)
{
	struct rte_pktmbuf_pool_private priv;
	struct rte_mempool *pool;
	int ret;

	if (rte_eal_iova_mode() != RTE_IOVA_VA)
		return rte_pktmbuf_pool_create(name, n, cache, 0, data_room, socket);

	memset(&priv, 0, sizeof(priv));
	priv.mbuf_data_room_size = data_room;
	pool = rte_mempool_create_empty(name, n, sizeof(struct rte_mbuf) + data_room, cache,
					sizeof(priv), socket, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	ret = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (ret == 0) {
		rte_pktmbuf_pool_init(pool, &priv);
		ret = fill_pool(pool, socket);
	}
	if (ret != 0) {
		rte_mempool_free(pool);
		rte_errno = -ret;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

uint32_t shim_pktmbuf_pool_stride(const struct rte_mempool *pool)
{
	if (!(pool->flags & RTE_MEMPOOL_F_NO_IOVA_CONTIG) || pool->nb_mem_chunks != 1)
		return 0;
	return pool->header_size + pool->elt_size + pool->trailer_size;
}

struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
}

void shim_pktmbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

unsigned int shim_ring_sp_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					unsigned int n)
{
	return rte_ring_sp_enqueue_burst(ring, (void **)mbufs, n, NULL);
}

unsigned int shim_ring_sc_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					unsigned int n)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)mbufs, n, NULL);
}

unsigned int shim_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}

unsigned int shim_ring_capacity(const struct rte_ring *ring)
{
	return rte_ring_get_capacity(ring);
}

struct rte_ring *shim_ring_create_spsc(const char *name, unsigned int count, int socket)
{
	return rte_ring_create(name, count, socket,
			       RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

static void copy_name(char *to, size_t room, const char *from)
{
	if (from == NULL)
		from = "";
	strncpy(to, from, room - 1);
	to[room - 1] = '\0';
}

/*
 * Drivers that set no MTU limit are held to their frame size by rte_eth_dev_configure, which then
 * counts an Ethernet header and a checksum.
 */
static uint16_t max_mtu(const struct rte_eth_dev_info *info)
{
	const uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;

	if (info->max_mtu != UINT16_MAX || info->max_rx_pktlen < overhead)
		return info->max_mtu;
	return (uint16_t)RTE_MIN(info->max_rx_pktlen - overhead, (uint32_t)UINT16_MAX);
}

int shim_port_info(uint16_t port, struct shim_port_info *out)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	memset(out, 0, sizeof(*out));
	if (ret != 0)
		return ret;
	copy_name(out->driver, sizeof(out->driver), info.driver_name);
	if (info.device != NULL)
		copy_name(out->device, sizeof(out->device), rte_dev_name(info.device));
	out->if_index = info.if_index;
	out->min_mtu = info.min_mtu;
	out->max_mtu = max_mtu(&info);
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->rss_offloads = info.flow_type_rss_offloads;
	/* A virtual device says where the thread was that made it. */
	out->socket_id = (int16_t)rte_eth_dev_socket_id(port);
	if (info.device == NULL || strcmp(rte_bus_name(rte_dev_bus(info.device)), "vdev") == 0)
		out->socket_id = SOCKET_ID_ANY;
	return 0;
}

int shim_port_link(uint16_t port, struct shim_link *out)
{
	struct rte_eth_link link;
	int ret;

	memset(&link, 0, sizeof(link));
	ret = rte_eth_link_get_nowait(port, &link);
	out->speed_mbps = link.link_speed;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return ret;
}

/* With a Toeplitz key of period 16 bits, both directions of a flow have the same hash. */
static uint8_t *symmetric_key(uint8_t len)
{
	static uint8_t key[UINT8_MAX];

	for (unsigned int i = 0; i < len; i++)
		key[i] = i % 2 == 0 ? 0x6d : 0x5a;
	return key;
}

int shim_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint32_t mtu,
			uint64_t rss_hf)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	if (rx_queues > 1 && rss_hf != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = rss_hf;
		/* Where the length is not told, the driver's own key is used. */
		if (info.hash_key_size != 0) {
			conf.rx_adv_conf.rss_conf.rss_key = symmetric_key(info.hash_key_size);
			conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
		}
	}
	return rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
}

int shim_port_adjust_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx)
{
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, rx, tx);
}

/* The structure of the driver's defaults may ask for offloads; none is wanted. */
int shim_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	info.default_rxconf.offloads = 0;
	return rte_eth_rx_queue_setup(port, queue, descriptors,
				      (unsigned int)rte_eth_dev_socket_id(port),
				      &info.default_rxconf, pool);
}

int shim_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	info.default_txconf.offloads = 0;
	return rte_eth_tx_queue_setup(port, queue, descriptors,
				      (unsigned int)rte_eth_dev_socket_id(port),
				      &info.default_txconf);
}

struct rte_device *shim_port_device(uint16_t port)
{
	struct rte_eth_dev_info info;

	if (rte_eth_dev_info_get(port, &info) != 0)
		return NULL;
	return info.device;
}

int shim_device_remove(struct rte_device *device)
{
	return rte_dev_remove(device);
}

uint64_t shim_rss_ip_tcp_udp(void)
{
	return RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
}
