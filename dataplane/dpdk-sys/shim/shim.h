/* What uvs uses of DPDK: these headers, and functions for what they have inline only. */
#ifndef UVS_DPDK_SHIM_H
#define UVS_DPDK_SHIM_H

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>

/* rte_errno, which is a variable of each thread. */
int uvs_errno(void);

/* rte_rcu_qsbr_thread_online. */
void uvs_rcu_online(struct rte_rcu_qsbr *v, unsigned int thread);

/* rte_rcu_qsbr_thread_offline. */
void uvs_rcu_offline(struct rte_rcu_qsbr *v, unsigned int thread);

/* rte_rcu_qsbr_quiescent. */
void uvs_rcu_quiescent(struct rte_rcu_qsbr *v, unsigned int thread);

#endif
