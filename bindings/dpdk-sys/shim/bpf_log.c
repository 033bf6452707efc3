/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libbpf and libxdp, which net_af_xdp brings along, print straight to standard error. What they say about
 * XDP programs of other versions and about the missing dispatcher is said each time a port comes or goes
 * and means nothing here: one program per interface is all that is wanted. The rest is passed on.
 *
 * The libraries are not linked: the driver may not be installed. Both have the same type of callback.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LEVEL_WARN = 0 };

typedef int (*print_fn)(int level, const char *format, va_list args);
typedef print_fn (*set_print_fn)(print_fn fn);

static const char *const known[] = {
	"skipping unrecognized data section",
	"No bpffs found",
	"Can't use dispatcher",
	"Falling back to loading single prog",
};

static int print_unknown(int level, const char *format, va_list args)
{
	char line[512];
	size_t i;

	if (level != LEVEL_WARN)
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(line, known[i]) != NULL)
			return 0;
	return fputs(line, stderr);
}

static void set_print(const char *library, const char *function)
{
	void *handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
	set_print_fn set;

	if (handle == NULL)
		return;
	set = (set_print_fn)dlsym(handle, function);
	if (set != NULL)
		set(print_unknown);
	dlclose(handle);
}

void shim_hush_bpf(void)
{
	set_print("libbpf.so.1", "libbpf_set_print");
	set_print("libxdp.so.1", "libxdp_set_print");
}
