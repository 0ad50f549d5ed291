/*
 * What the gate counts with, inside the process that it measures: marks for callgrind
 * (valgrind/callgrind.h; they do nothing elsewhere), and a count of CPython's
 * allocations (PEP 445).
 */
#include <Python.h>
#include <valgrind/callgrind.h>

void
probe_start(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void
probe_stop(void)
{
    CALLGRIND_DUMP_STATS;
    CALLGRIND_STOP_INSTRUMENTATION;
}

enum { DOMAINS = 3 }; /* PYMEM_DOMAIN_RAW, _MEM, _OBJ */

static PyMemAllocatorEx inner[DOMAINS];
static long long made, freed;

static void *
count_malloc(void *domain, size_t size)
{
    PyMemAllocatorEx *next = domain;
    made++;
    return next->malloc(next->ctx, size);
}

static void *
count_calloc(void *domain, size_t count, size_t size)
{
    PyMemAllocatorEx *next = domain;
    made++;
    return next->calloc(next->ctx, count, size);
}

static void *
count_realloc(void *domain, void *memory, size_t size)
{
    PyMemAllocatorEx *next = domain;
    made += memory == NULL;
    return next->realloc(next->ctx, memory, size);
}

static void
count_free(void *domain, void *memory)
{
    PyMemAllocatorEx *next = domain;
    freed += memory != NULL;
    next->free(next->ctx, memory);
}

/* Call with the GIL held. */
void
probe_count_allocations(void)
{
    for (int domain = 0; domain < DOMAINS; domain++) {
        PyMemAllocatorEx counting = {&inner[domain], count_malloc, count_calloc,
                                     count_realloc, count_free};
        PyMem_GetAllocator(domain, &inner[domain]);
        PyMem_SetAllocator(domain, &counting);
    }
}

long long
probe_made(void)
{
    return made;
}

long long
probe_freed(void)
{
    return freed;
}
