/* SPDX-License-Identifier: ISC */
/* check_hash_table: the hash is SipHash, and the tables have a key of their own. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash_table.h"

/* The first of the authors' test vectors: the key is 00 01 ... 0f, input i the bytes 00 ... i-1. */
START_TEST(siphash_2_4)
{
	static const uint64_t expected[] = {
		0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
		0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
		0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
		0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
		0x3f2acc7f57c29bdb, 0x699ae9f52cbe4794,
	};
	const struct siphash_key key = { { 0x0706050403020100, 0x0f0e0d0c0b0a0908 } };
	uint8_t input[64];

	for (uint8_t i = 0; i < sizeof(input); i++)
		input[i] = i;
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		ck_assert_uint_eq(siphash(&key, 2, 4, input, i), expected[i]);
	ck_assert_uint_eq(siphash(&key, 2, 4, input, 63), 0x958a324ceb064572);
}
END_TEST

/* What CPython computes with PYTHONHASHSEED=0, which is a key of zeros. */
START_TEST(siphash_1_3)
{
	static const char channel[] = "notifications:tenant:default:broadcast";
	const struct siphash_key key = { { 0, 0 } };
	uint8_t input[64];

	for (uint8_t i = 0; i < sizeof(input); i++)
		input[i] = i;
	ck_assert_uint_eq(siphash(&key, 1, 3, "a", 1), 0x407448d2b89b1813);
	ck_assert_uint_eq(siphash(&key, 1, 3, "12345678", 8), 0x3489982430560a87);
	ck_assert_uint_eq(siphash(&key, 1, 3, channel, strlen(channel)), 0xd79f61167682a4d0);
	ck_assert_uint_eq(siphash(&key, 1, 3, input, 64), 0x75e05fd5bbc870c6);
}
END_TEST

/* Another process has another key: which names collide cannot be computed outside. */
START_TEST(the_key_is_random)
{
	const struct siphash_key zero = { { 0, 0 } };
	char text[32], command[512];
	unsigned other = 0;
	FILE *child;

	ck_assert_uint_ne(hash_table_hash("ab", 2), (uint32_t)siphash(&zero, 1, 3, "ab", 2));
	ck_assert_uint_eq(hash_table_hash("ab", 2), hash_table_hash("ab", 2));
	snprintf(command, sizeof(command), "/proc/%d/exe print", (int)getpid());
	child = popen(command, "r");
	ck_assert_ptr_nonnull(child);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), child));
	ck_assert_int_eq(sscanf(text, "%u", &other), 1);
	ck_assert_int_eq(pclose(child), 0);
	ck_assert_uint_ne(hash_table_hash("ab", 2), other);
}
END_TEST

int
main(int argc, char **argv)
{
	Suite *s;
	TCase *tc;
	SRunner *sr;
	int failed;

	if (argc == 2 && strcmp(argv[1], "print") == 0) {
		printf("%u\n", hash_table_hash("ab", 2));
		return EXIT_SUCCESS;
	}
	s = suite_create("hash_table");
	tc = tcase_create("hash_table");
	sr = srunner_create(s);
	tcase_add_test(tc, siphash_2_4);
	tcase_add_test(tc, siphash_1_3);
	tcase_add_test(tc, the_key_is_random);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
