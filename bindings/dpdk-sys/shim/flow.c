/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Flow rules of one kind: a destination port of UDP or TCP, and the receive queue that it goes to.
 */
#include "shim.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_flow.h>

/* A rule as DPDK has it. It points into itself. */
struct rule {
	struct rte_flow_attr attr;
	struct rte_flow_item items[4];
	struct rte_flow_action actions[2];
	struct rte_flow_item_udp udp, udp_mask;
	struct rte_flow_item_tcp tcp, tcp_mask;
	struct rte_flow_action_queue queue;
};

static void build(struct rule *to, const struct shim_flow_rule *from)
{
	struct rte_flow_item *l4 = &to->items[2];

	memset(to, 0, sizeof(*to));
	to->attr.ingress = 1;
	to->items[0].type = RTE_FLOW_ITEM_TYPE_ETH;
	to->items[1].type = from->ipv6 ? RTE_FLOW_ITEM_TYPE_IPV6 : RTE_FLOW_ITEM_TYPE_IPV4;
	if (from->tcp) {
		to->tcp.hdr.dst_port = htons(from->dport);
		to->tcp_mask.hdr.dst_port = UINT16_MAX;
		l4->type = RTE_FLOW_ITEM_TYPE_TCP;
		l4->spec = &to->tcp;
		l4->mask = &to->tcp_mask;
	} else {
		to->udp.hdr.dst_port = htons(from->dport);
		to->udp_mask.hdr.dst_port = UINT16_MAX;
		l4->type = RTE_FLOW_ITEM_TYPE_UDP;
		l4->spec = &to->udp;
		l4->mask = &to->udp_mask;
	}
	to->items[3].type = RTE_FLOW_ITEM_TYPE_END;
	to->queue.index = from->queue;
	to->actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
	to->actions[0].conf = &to->queue;
	to->actions[1].type = RTE_FLOW_ACTION_TYPE_END;
}

/* The driver's words are copied: what they point to may go with the next call. */
static void explain(struct shim_flow_error *to, int ret, const struct rte_flow_error *from)
{
	to->code = ret < 0 ? -ret : ret;
	if (from->message != NULL)
		strncpy(to->message, from->message, sizeof(to->message) - 1);
}

int shim_flow_validate(uint16_t port, const struct shim_flow_rule *rule, struct shim_flow_error *out)
{
	struct rte_flow_error error = { 0 };
	struct rule built;
	int ret;

	memset(out, 0, sizeof(*out));
	build(&built, rule);
	ret = rte_flow_validate(port, &built.attr, built.items, built.actions, &error);
	if (ret != 0)
		explain(out, ret, &error);
	return ret;
}

struct rte_flow *shim_flow_create(uint16_t port, const struct shim_flow_rule *rule,
				  struct shim_flow_error *out)
{
	struct rte_flow_error error = { 0 };
	struct rte_flow *flow;
	struct rule built;

	memset(out, 0, sizeof(*out));
	build(&built, rule);
	flow = rte_flow_create(port, &built.attr, built.items, built.actions, &error);
	if (flow == NULL)
		explain(out, rte_errno, &error);
	return flow;
}

int shim_flow_destroy(uint16_t port, struct rte_flow *flow, struct shim_flow_error *out)
{
	struct rte_flow_error error = { 0 };
	int ret;

	memset(out, 0, sizeof(*out));
	ret = rte_flow_destroy(port, flow, &error);
	if (ret != 0)
		explain(out, ret, &error);
	return ret;
}
