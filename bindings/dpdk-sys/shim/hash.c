/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * In a file of its own: programs without a hash table are not linked to librte_hash.
 */
#include "shim.h"

#include <rte_hash_crc.h>

struct rte_hash *shim_hash_create(const char *name, uint32_t entries, uint32_t key_len,
				  uint32_t seed, int socket)
{
	struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries,
		.key_len = key_len,
		.hash_func = rte_hash_crc,
		.hash_func_init_val = seed,
		.socket_id = socket,
	};

	return rte_hash_create(&parameters);
}
