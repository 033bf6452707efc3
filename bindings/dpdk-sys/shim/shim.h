/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Inline functions of DPDK as real symbols, and the few calls whose argument structures are too
 * large or too version dependent to be worth binding. bindgen reads this file; there is no second
 * declaration anywhere.
 */
#ifndef MPIP_DPDK_SHIM_H
#define MPIP_DPDK_SHIM_H

#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* What the wrapper reads of struct rte_eth_dev_info and struct rte_device. */
struct shim_port_info {
	char driver[64];
	char device[64];
	uint32_t if_index;
	uint16_t min_mtu;
	/* As rte_eth_dev_configure will have it. */
	uint16_t max_mtu;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint64_t rss_offloads;
	int16_t socket_id;
};

struct shim_link {
	uint32_t speed_mbps;
	uint8_t up;
	uint8_t full_duplex;
};

/* rte_errno of the calling thread. */
int shim_errno(void);
/* Lcore id of the calling thread, LCORE_ID_ANY (UINT32_MAX) if it is not registered. */
unsigned int shim_lcore_id(void);
uint64_t shim_rdtsc(void);

/* Data path: one call per burst. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);

/*
 * As rte_pktmbuf_pool_create, but where virtual addresses are I/O addresses the objects lie side by side
 * in one piece of memory. net_af_xdp takes the pool for such a piece, whatever it is, and loses the
 * buffers that lie outside. NULL on failure, with rte_errno set.
 */
struct rte_mempool *shim_pktmbuf_pool_create(const char *name, unsigned int n, unsigned int cache,
					     uint16_t data_room, int socket);
/* Bytes from one object of a pool to the next; 0 if they are not side by side in one piece. */
uint32_t shim_pktmbuf_pool_stride(const struct rte_mempool *pool);
struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool);
/* 0 if all n were allocated, else none was. */
int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
void shim_pktmbuf_free(struct rte_mbuf *mbuf);

unsigned int shim_ring_sp_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					unsigned int n);
unsigned int shim_ring_sc_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					unsigned int n);
unsigned int shim_ring_count(const struct rte_ring *ring);
unsigned int shim_ring_capacity(const struct rte_ring *ring);
/* A single-producer, single-consumer ring that holds exactly `count` entries. */
struct rte_ring *shim_ring_create_spsc(const char *name, unsigned int count, int socket);

/* A table with CRC32 as its hash, for one thread. NULL on failure, with rte_errno set. */
struct rte_hash *shim_hash_create(const char *name, uint32_t entries, uint32_t key_len,
				  uint32_t seed, int socket);
/* Bytes that are allocated on DPDK's heaps. */
uint64_t shim_heap_bytes(void);

/* Control path. */
int shim_port_info(uint16_t port, struct shim_port_info *out);
int shim_port_link(uint16_t port, struct shim_link *out);
/* Configures with every offload off; several rx queues get RSS over `rss_hf`, with a
 * symmetric key, unless that is 0. */
int shim_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint32_t mtu,
			uint64_t rss_hf);
/* Rounds the descriptor counts to what the device takes. */
int shim_port_adjust_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx);
/* Queue set-up with the driver's default thresholds, on the port's own socket. */
int shim_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			struct rte_mempool *pool);
int shim_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors);
/* Releases the device of a port that was closed; `device` is what shim_port_device returned. */
struct rte_device *shim_port_device(uint16_t port);
int shim_device_remove(struct rte_device *device);
uint64_t shim_rss_ip_tcp_udp(void);

/* Packets of one destination port, in host byte order, go to one receive queue. */
struct shim_flow_rule {
	uint16_t queue;
	uint16_t dport;
	uint8_t tcp;
	uint8_t ipv6;
};

/* Why the driver refused: an errno value, and its words, if it has some. */
struct shim_flow_error {
	int code;
	char message[120];
};

/* As the calls of the same names; `out` is filled in on failure. The handle of a rule is only good for
 * shim_flow_destroy. */
int shim_flow_validate(uint16_t port, const struct shim_flow_rule *rule,
		       struct shim_flow_error *out);
struct rte_flow *shim_flow_create(uint16_t port, const struct shim_flow_rule *rule,
				  struct shim_flow_error *out);
int shim_flow_destroy(uint16_t port, struct rte_flow *flow, struct shim_flow_error *out);

/* From now on libbpf and libxdp, if loaded, print warnings only, and not those that mean nothing. */
void shim_hush_bpf(void);

#endif
