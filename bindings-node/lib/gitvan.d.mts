export * from './gitvan.js';
