/* Egress of established IPv4 sessions over udp paths, as a C programmer writes it against DPDK.
 *
 * The same work as the Rust engine's express lane for packets from the LAN, and the same bytes: check
 * the frame, hash the tuple, find the session's row, choose a path, number the packet, write the outer
 * headers and the control message (docs/wire.md) with their checksums, count, send in bursts. One row is
 * one cache line. What needs anything else is freed and counted as `other`.
 *
 * One thread owns everything here. For benchmarks. */

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <emmintrin.h>
#include <sys/mman.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#define BURST 32
#define RETRIES 4
#define PATHS 4
#define LANES 32
#define PORTS 8

#define ETH_LEN 14
#define IP_LEN 20
#define L4 (ETH_LEN + IP_LEN)
#define UDP_LEN 8
#define FRONT (L4 + UDP_LEN)
#define CM_LEN 41
#define GROWTH (UDP_LEN + CM_LEN)

#define TCP 6
#define UDP 17
#define CM_MAGIC 0xb5u
#define CM_SHAPE 0x50u /* version 1, sequence block */
#define CM_WRAP 0x20u
#define COUNTER_MASK 0x3ffffffu

enum state { FREE = 0, CONFIRMED = 2 };

/* What every packet of a session needs. */
struct row {
	uint32_t src, dst;
	uint16_t sport, dport;
	uint8_t protocol, lane, state, fin;
	uint32_t id, tx_seq;
	uint64_t epoch;
	uint64_t last_used;
	uint64_t tx_packets, tx_bytes;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct row) == 64, "a row is a cache line");

#define SLOTS 10
#define LOAD 7
#define PROBES 64

struct bucket {
	uint16_t tags[SLOTS]; /* 0: free */
	uint32_t rows[SLOTS];
	uint32_t spilled; /* keys that went past */
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

/* Shared with lib.rs. */
struct twin_path {
	uint8_t next_hop[6], mac[6];
	uint32_t local, remote;
	uint16_t sport, dport; /* of lane 0 */
	uint16_t port, queue;
	uint32_t weight;
	uint8_t id;
};

struct twin_config {
	uint64_t node, epoch, seed[3];
	uint64_t limit; /* longest IP packet of a host */
	uint32_t sessions, paths, others;
	uint16_t lan_port, lan_queue;
	uint8_t lan_mac[6];
	uint16_t other_port[PORTS], other_queue[PORTS];
	struct twin_path path[PATHS];
};

struct twin_session {
	uint32_t src, dst;
	uint16_t sport, dport;
	uint8_t protocol, lane;
	uint32_t id, tx_seq;
};

struct twin_counts {
	uint64_t received, sent, dropped, other;
};

struct path {
	uint8_t eth[ETH_LEN];
	uint8_t id;
	uint16_t sport, dport;
	uint16_t port, queue;
	uint32_t local, remote;
	uint64_t addresses; /* sum of both */
	int64_t credit, weight;
	uint64_t tx_packets, tx_bytes;
	uint32_t counter[LANES];
	uint16_t n;
	struct rte_mbuf *tx[BURST];
};

struct report {
	uint64_t turn; /* 0: nothing new */
	int32_t delay;
	uint8_t path;
};

struct twin {
	struct twin_config config;
	struct row *rows;
	uint32_t used;
	struct bucket *buckets;
	uint64_t n_buckets;
	int64_t total_weight;
	uint32_t n_reports;
	struct report reports[32];
	struct path paths[PATHS];
	struct twin_counts counts;
};

/* What is known of a packet between two stages. */
struct ready {
	uint64_t hash;
	uint32_t src, dst;
	uint16_t sport, dport, end;
	uint8_t protocol, ok;
};

static inline uint16_t be16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return __builtin_bswap16(v);
}

static inline uint32_t be32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return __builtin_bswap32(v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof(v));
}

/* Ones' complement sum of what was added up in 64 bits without overflow. */
static inline uint16_t fold(uint64_t s)
{
	s += s << 32 | s >> 32;
	uint32_t w = (uint32_t)(s >> 32);
	w += w << 16 | w >> 16;
	return (uint16_t)(w >> 16);
}

static inline uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;
	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline uint64_t hash_of(const struct twin *t, uint32_t src, uint32_t dst, uint16_t sport,
			       uint16_t dport, uint8_t protocol)
{
	uint64_t a = (uint64_t)src << 32 | dst;
	uint64_t b = (uint64_t)sport << 32 | (uint64_t)dport << 16 | protocol;
	const uint64_t *seed = t->config.seed;
	return mix(mix(a ^ seed[0], b ^ seed[1]), seed[2]);
}

static inline uint64_t home(const struct twin *t, uint64_t hash)
{
	return (uint64_t)(((unsigned __int128)hash * t->n_buckets) >> 64);
}

static inline uint16_t tag_of(uint64_t hash)
{
	uint16_t tag = (uint16_t)hash;
	return tag ? tag : 1;
}

static inline uint32_t matches(const struct bucket *b, uint16_t tag)
{
	__m128i all = _mm_loadu_si128((const __m128i *)b->tags);
	__m128i same = _mm_cmpeq_epi16(all, _mm_set1_epi16((short)tag));
	uint32_t m = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
	return m | (uint32_t)(b->tags[8] == tag) << 8 | (uint32_t)(b->tags[9] == tag) << 9;
}

static inline bool is_row(const struct row *r, const struct ready *p)
{
	return r->src == p->src && r->dst == p->dst && r->sport == p->sport && r->dport == p->dport &&
	       r->protocol == p->protocol && r->state != FREE;
}

static inline struct row *find(struct twin *t, const struct ready *p)
{
	uint16_t tag = tag_of(p->hash);
	uint64_t at = home(t, p->hash);
	for (int probe = 0; probe < PROBES; probe++) {
		const struct bucket *b = &t->buckets[at];
		for (uint32_t m = matches(b, tag); m; m &= m - 1) {
			struct row *r = &t->rows[b->rows[__builtin_ctz(m)]];
			if (is_row(r, p))
				return r;
		}
		if (!b->spilled)
			return NULL;
		at = at + 1 == t->n_buckets ? 0 : at + 1;
	}
	return NULL;
}

/* Smooth weighted round robin. */
static inline struct path *pick(struct twin *t)
{
	struct path *best = NULL;
	for (uint32_t i = 0; i < t->config.paths; i++) {
		struct path *p = &t->paths[i];
		if (p->weight == 0)
			continue;
		p->credit += p->weight;
		if (!best || p->credit > best->credit)
			best = p;
	}
	if (best)
		best->credit -= t->total_weight;
	return best;
}

/* The path whose delay has waited longest to be reported. */
static inline struct report *next_report(struct twin *t)
{
	struct report *first = NULL;
	for (uint32_t i = 0; i < t->n_reports; i++) {
		struct report *r = &t->reports[i];
		if (r->turn && (!first || r->turn < first->turn))
			first = r;
	}
	if (first)
		first->turn = 0;
	return first;
}

static inline bool steady_tcp(const uint8_t *l4, uint16_t len)
{
	if (len < 20)
		return false;
	uint16_t header = (uint16_t)((l4[12] >> 4) * 4);
	return header >= 20 && header <= len && !(l4[13] & 0x07);
}

/* First stage: reads a frame, hashes its tuple and asks for the bucket. */
static inline void read_frame(struct twin *t, const struct rte_mbuf *m, struct ready *p)
{
	const uint8_t *h = rte_pktmbuf_mtod(m, const uint8_t *);
	uint16_t len = rte_pktmbuf_data_len(m);
	p->ok = 0;
	if (len < FRONT || m->nb_segs != 1 || memcmp(h, t->config.lan_mac, 6) || h[12] != 8 ||
	    h[13] != 0 || h[14] != 0x45 || be16(h + ETH_LEN + 6) & 0x3fff)
		return;
	uint64_t sum = 0;
	for (int i = 0; i < 5; i++)
		sum += be32(h + ETH_LEN + 4 * i);
	uint32_t end = ETH_LEN + be16(h + ETH_LEN + 2);
	if (fold(sum) != 0xffff || end < FRONT || end > len)
		return;
	uint8_t protocol = h[ETH_LEN + 9];
	uint16_t l4_len = (uint16_t)(end - L4);
	bool steady = protocol == UDP ? be16(h + L4 + 4) == l4_len && be16(h + L4 + 6) != 0
		    : protocol == TCP ? steady_tcp(h + L4, l4_len)
				      : false;
	if (!steady || h[ETH_LEN + 8] <= 1)
		return;
	p->src = be32(h + ETH_LEN + 12);
	p->dst = be32(h + ETH_LEN + 16);
	p->sport = be16(h + L4);
	p->dport = be16(h + L4 + 2);
	p->end = (uint16_t)end;
	p->protocol = protocol;
	p->hash = hash_of(t, p->src, p->dst, p->sport, p->dport, protocol);
	p->ok = 1;
	rte_prefetch0(&t->buckets[home(t, p->hash)]);
}

/* Second stage: asks for the row. */
static inline void seek(const struct twin *t, const struct ready *p)
{
	const struct bucket *b = &t->buckets[home(t, p->hash)];
	uint32_t m = matches(b, tag_of(p->hash));
	if (m)
		rte_prefetch0(&t->rows[b->rows[__builtin_ctz(m)]]);
}

static inline void flush(struct twin *t, struct path *p)
{
	uint16_t sent = 0;
	for (int i = 0; i <= RETRIES && sent < p->n; i++) {
		if (i)
			rte_pause();
		sent += rte_eth_tx_burst(p->port, p->queue, p->tx + sent, p->n - sent);
	}
	t->counts.sent += sent;
	if (sent < p->n) {
		t->counts.dropped += p->n - sent;
		rte_pktmbuf_free_bulk(p->tx + sent, p->n - sent);
	}
	p->n = 0;
}

/* Last stage; false when the packet is none of ours to send. */
static inline bool forward(struct twin *t, const struct ready *p, struct rte_mbuf *m, uint64_t now)
{
	struct row *r = find(t, p);
	uint16_t l3_len = p->end - ETH_LEN;
	if (!r || r->state != CONFIRMED || r->epoch != t->config.epoch || r->fin == 3 ||
	    l3_len > t->config.limit)
		return false;
	struct path *path = pick(t);
	if (!path)
		return false;
	const struct report *report = next_report(t);
	uint64_t counter = path->counter[r->lane]++ & COUNTER_MASK;

	uint16_t data_len = rte_pktmbuf_data_len(m);
	if (p->end < data_len)
		rte_pktmbuf_trim(m, data_len - p->end);
	uint8_t *tail = (uint8_t *)rte_pktmbuf_append(m, CM_LEN);
	uint8_t *h = (uint8_t *)rte_pktmbuf_prepend(m, UDP_LEN);
	if (!tail || !h)
		return false;

	/* Built and summed in words of eight bytes; the checksum stands at an odd offset. */
	uint64_t w[5] = {
		(uint64_t)r->tx_seq << 32 | (uint64_t)r->lane << 26 | counter,
		0,
		t->config.node << 16 | r->id >> 16,
		(uint64_t)r->id << 48 | (uint64_t)path->id << 40 |
			(uint64_t)(report ? report->path : 0) << 32 | (uint32_t)(now / 1000),
		(uint64_t)(uint32_t)(report ? report->delay : 0) << 32 | CM_WRAP << 24 | CM_SHAPE << 16 |
			CM_MAGIC << 8,
	};
	uint64_t cm = 0;
	for (int i = 0; i < 5; i++)
		cm += (w[i] >> 32) + (uint32_t)w[i];
	uint16_t check = (uint16_t)~fold(cm);
	cm += __builtin_bswap16(check);
	w[4] |= check >> 8;
	for (int i = 0; i < 5; i++)
		put64(tail + 8 * i, w[i]);
	tail[40] = (uint8_t)check;

	/* A segment whose own checksum covers it all sums to what its pseudo header lacks. */
	uint16_t inner_len = p->end - L4;
	uint64_t pseudo = (uint64_t)p->src + p->dst + p->protocol + inner_len;
	uint16_t udp_len = inner_len + GROWTH;
	uint16_t sport = path->sport + r->lane, dport = path->dport + r->lane;
	uint16_t cm_sum = fold(cm);
	if (inner_len & 1)
		cm_sum = __builtin_bswap16(cm_sum);
	uint64_t sum = path->addresses + UDP + 2u * udp_len + sport + dport +
		       (uint16_t)~fold(pseudo) + cm_sum;
	uint16_t udp_check = (uint16_t)~fold(sum);
	if (!udp_check)
		udp_check = 0xffff;

	/* The old IP header begins where 8 bytes were put in front. */
	const uint8_t *old = h + UDP_LEN + ETH_LEN;
	uint16_t ip_len = udp_len + IP_LEN;
	uint64_t front = (uint64_t)0x45 << 56 | (uint64_t)old[1] << 48 | (uint64_t)ip_len << 32 |
			 be32(old + 4);
	uint32_t rest = (uint32_t)(old[8] - 1) << 8 | UDP;
	uint64_t ip = path->addresses + (front >> 32) + (uint32_t)front + rest;
	memcpy(h, path->eth, ETH_LEN);
	put64(h + ETH_LEN, front);
	put32(h + ETH_LEN + 8, rest << 16 | (uint16_t)~fold(ip));
	put32(h + ETH_LEN + 12, path->local);
	put32(h + ETH_LEN + 16, path->remote);
	put64(h + L4, (uint64_t)sport << 48 | (uint64_t)dport << 32 | (uint64_t)udp_len << 16 |
			      udp_check);

	r->tx_seq++;
	r->last_used = now;
	r->tx_packets++;
	r->tx_bytes += l3_len;
	path->tx_packets++;
	path->tx_bytes += ip_len;
	if (path->n == BURST)
		flush(t, path);
	path->tx[path->n++] = m;
	return true;
}

/* One round at `now`, ns; returns the packets received. */
uint32_t twin_poll(struct twin *t, uint64_t now)
{
	struct rte_mbuf *rx[BURST];
	struct ready ready[BURST];
	uint16_t n = rte_eth_rx_burst(t->config.lan_port, t->config.lan_queue, rx, BURST);
	for (uint16_t i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(rx[i], void *));
	for (uint16_t i = 0; i < n; i++)
		read_frame(t, rx[i], &ready[i]);
	for (uint16_t i = 0; i < n; i++)
		if (ready[i].ok)
			seek(t, &ready[i]);
	for (uint16_t i = 0; i < n; i++) {
		if (!ready[i].ok || !forward(t, &ready[i], rx[i], now)) {
			t->counts.other++;
			rte_pktmbuf_free(rx[i]);
		}
	}
	uint32_t received = n;
	for (uint32_t i = 0; i < t->config.others; i++) {
		n = rte_eth_rx_burst(t->config.other_port[i], t->config.other_queue[i], rx, BURST);
		received += n;
		t->counts.other += n;
		if (n)
			rte_pktmbuf_free_bulk(rx, n);
	}
	for (uint32_t i = 0; i < t->config.paths; i++)
		if (t->paths[i].n)
			flush(t, &t->paths[i]);
	t->counts.received += received;
	return received;
}

void twin_counts(const struct twin *t, struct twin_counts *out)
{
	*out = t->counts;
}

void twin_free(struct twin *t)
{
	if (!t)
		return;
	free(t->rows);
	free(t->buckets);
	free(t);
}

static void *table(size_t bytes)
{
	const size_t huge = 2 << 20;
	size_t size = (bytes + huge - 1) / huge * huge;
	void *at = aligned_alloc(huge, size);
	if (at) {
		madvise(at, size, MADV_HUGEPAGE);
		memset(at, 0, size);
	}
	return at;
}

struct twin *twin_new(const struct twin_config *c)
{
	if (c->paths > PATHS || c->others > PORTS || c->sessions == 0)
		return NULL;
	struct twin *t = aligned_alloc(64, (sizeof(*t) + 63) / 64 * 64);
	if (!t)
		return NULL;
	memset(t, 0, sizeof(*t));
	t->config = *c;
	t->n_buckets = (c->sessions + LOAD - 1) / LOAD;
	t->n_buckets = t->n_buckets < 4 ? 4 : t->n_buckets;
	t->rows = table((size_t)c->sessions * sizeof(struct row));
	t->buckets = table(t->n_buckets * sizeof(struct bucket));
	if (!t->rows || !t->buckets) {
		twin_free(t);
		return NULL;
	}
	for (uint32_t i = 0; i < c->paths; i++) {
		const struct twin_path *from = &c->path[i];
		struct path *p = &t->paths[i];
		memcpy(p->eth, from->next_hop, 6);
		memcpy(p->eth + 6, from->mac, 6);
		p->eth[12] = 8;
		p->id = from->id;
		p->sport = from->sport;
		p->dport = from->dport;
		p->port = from->port;
		p->queue = from->queue;
		p->local = from->local;
		p->remote = from->remote;
		p->addresses = (uint64_t)from->local + from->remote;
		p->weight = from->weight;
		t->total_weight += from->weight;
	}
	return t;
}

/* False when there is no room. The tuple is new. */
bool twin_insert(struct twin *t, const struct twin_session *s)
{
	if (t->used >= t->config.sessions || s->lane >= LANES)
		return false;
	uint64_t hash = hash_of(t, s->src, s->dst, s->sport, s->dport, s->protocol);
	uint64_t first = home(t, hash), at = first;
	for (int probe = 0; probe < PROBES; probe++) {
		struct bucket *b = &t->buckets[at];
		uint32_t free_slots = matches(b, 0);
		if (free_slots) {
			int slot = __builtin_ctz(free_slots);
			b->tags[slot] = tag_of(hash);
			b->rows[slot] = t->used;
			for (; first != at; first = first + 1 == t->n_buckets ? 0 : first + 1)
				t->buckets[first].spilled++;
			t->rows[t->used++] = (struct row){
				.src = s->src, .dst = s->dst, .sport = s->sport, .dport = s->dport,
				.protocol = s->protocol, .lane = s->lane, .state = CONFIRMED,
				.id = s->id, .tx_seq = s->tx_seq, .epoch = t->config.epoch,
			};
			return true;
		}
		at = at + 1 == t->n_buckets ? 0 : at + 1;
	}
	return false;
}

/* Next packet counter of a path's lane. */
void twin_counter(struct twin *t, uint32_t path, uint32_t lane, uint32_t next)
{
	if (path < PATHS && lane < LANES)
		t->paths[path].counter[lane] = next;
}

/* A delay to be reported with the next packet. */
bool twin_report(struct twin *t, uint8_t path, int32_t delay)
{
	uint64_t turn = 0;
	for (uint32_t i = 0; i < t->n_reports; i++)
		turn = t->reports[i].turn > turn ? t->reports[i].turn : turn;
	if (t->n_reports == 32)
		return false;
	t->reports[t->n_reports++] = (struct report){ .turn = turn + 1, .delay = delay, .path = path };
	return true;
}
