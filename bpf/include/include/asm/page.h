/* What bcc multiplies a ring buffer's pages with; the size in bytes has to be a multiple of the machine's own. */
#define PAGE_SIZE 4096
