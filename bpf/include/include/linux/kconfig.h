/* bcc compiles every program with "-include include/linux/kconfig.h". */
#ifndef INTCOLLECTOR_KCONFIG_H
#define INTCOLLECTOR_KCONFIG_H
#include <generated/autoconf.h>
#endif
