#include "shim.h"

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
